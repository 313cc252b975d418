"""Learning on one device: local steps of SGD or AdamW, and the test set."""

from dataclasses import dataclass
from time import thread_time

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from node.data import Share
from node.model import FlatModel
from protocol.learning import Training
from protocol.messages import SKETCH_SIZE, Pilot
from protocol.streams import Purpose, stream, sub_seed

EVALUATION_BATCH = 64
"""Few enough that what layers pass on stays in a processor's cache; more only takes longer."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and mean loss on the test set."""

    accuracy: float
    loss: float


@dataclass(frozen=True)
class Measured:
    """What was measured for the bounds, and what that took."""

    pilot: Pilot
    took: "Trained"


@dataclass(frozen=True)
class Trained:
    """What the local rounds of one round came to: their mean training loss, and what they took."""

    loss: float | None
    samples: int
    processor_s: float
    """Processor time of this thread on the host."""


class Trainer:
    """A model, its optimiser and its samples; batches are drawn from the device's own stream."""

    def __init__(self, model: FlatModel, share: Share, training: Training, *, seed: int, device: int) -> None:
        self._model = model
        self._share = share
        self._training, self._seed, self._device = training, seed, device
        self._batch_size = min(training.batch_size, len(share.y))
        self._momentum = training.momentum
        self._normalises = training.is_adaptive and training.averaging == "normalised"
        # The parameters are views of x, so each optimiser step moves x and nothing is copied back.
        self._optimiser = _optimiser(model, training)
        self._generator = torch.Generator().manual_seed(sub_seed(seed, Purpose.BATCHES, a=device))
        self._order = torch.empty(0, dtype=torch.int64)

    def local_sgd(self, num_local_rounds: int, mean_local_rounds: float = 0.0) -> Trained:
        """Take the local rounds of one round in place, normalised to a mean over devices where they differ.

        x + (||a(tref)||_1 / ||a(tau)||_1) (y - x), y after tau steps and ||a||_1 the sum of their weights, so
        that nobody counts for more by doing more (FedNova: Wang et al., "Tackling the objective inconsistency
        problem in heterogeneous federated optimization", NeurIPS 2020). tref is the harmonic mean of the tau:
        the noise of the mean update is then that of tref steps, however unequal they are.
        """
        x, began_s = self._model.x, thread_time()
        pending: list[torch.Tensor] = []
        scale = 1.0
        if self._normalises and num_local_rounds and mean_local_rounds:
            scale = step_weights(mean_local_rounds, self._momentum)
            scale /= step_weights(num_local_rounds, self._momentum)
            self._optimiser.state.clear()  # momentum of an earlier round would count in this one
        start = x.clone() if scale != 1 else x
        for _ in range(num_local_rounds):
            batch = self._next_batch()
            loss = cross_entropy(self._model.module(self._share.x[batch]), self._share.y[batch])
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            pending.append(loss.detach())  # read at the end: a GPU would have to finish for it
        if scale != 1:
            x.sub_(start).mul_(scale).add_(start)
        losses = torch.stack(pending).tolist() if pending else []
        return Trained(
            loss=sum(losses) / len(losses) if losses else None,
            samples=self._batch_size * len(losses),
            processor_s=thread_time() - began_s,
        )

    def pilot(self, round_: int) -> Measured:
        """Measure gradients at the model as it is; neither that nor the batches of training are changed."""
        began_s, x, learning_rate = thread_time(), self._model.x, self._training.learning_rate
        rng = stream(self._seed, Purpose.PILOTS, round_=round_, a=1 + self._device)
        one, two = (rng.permutation(len(self._share.y))[: self._batch_size] for _ in range(2))
        loss, gradient = self._gradient(one)
        other_loss, other = self._gradient(two)
        start = x.clone()
        x.sub_(gradient, alpha=learning_rate)
        change = self._gradient(one)[1].sub_(gradient)
        x.copy_(start)
        movement = learning_rate * float(gradient.norm())
        pilot = Pilot(
            loss=(loss + other_loss) / 2,
            difference_norm_sq=float((gradient - other).square().sum()),
            sketch=sketch(gradient.add(other).div(2).cpu().numpy(), self._seed, round_),
            secant=float(change.norm()) / movement if movement else None,
        )
        samples = 3 * self._batch_size
        return Measured(pilot, Trained(loss=None, samples=samples, processor_s=thread_time() - began_s))

    def _gradient(self, batch: npt.NDArray[np.int64]) -> tuple[float, torch.Tensor]:
        """Return loss and gradient of a minibatch, shape (num_values,)."""
        loss = cross_entropy(self._model.module(self._share.x[batch]), self._share.y[batch])
        gradients = torch.autograd.grad(loss, list(self._model.module.parameters()))
        return loss.item(), torch.cat([gradient.reshape(-1) for gradient in gradients])

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Classify the whole test set."""
        count = len(self._share.test_y)
        correct: list[torch.Tensor] = []
        losses: list[torch.Tensor] = []
        for start in range(0, count, EVALUATION_BATCH):
            y = self._share.test_y[start : start + EVALUATION_BATCH]
            logits = self._model.module(self._share.test_x[start : start + EVALUATION_BATCH])
            correct.append((logits.argmax(1) == y).sum())
            losses.append(cross_entropy(logits, y, reduction="sum"))
        return Evaluation(
            sum(torch.stack(correct).tolist()) / count, sum(torch.stack(losses).tolist()) / count
        )

    def _next_batch(self) -> torch.Tensor:
        """Walk through the samples in a fresh random order per epoch; the short rest of one is left out."""
        if len(self._order) < self._batch_size:
            order = torch.randperm(len(self._share.y), generator=self._generator)
            self._order = order.to(self._share.y.device)
        batch, self._order = self._order[: self._batch_size], self._order[self._batch_size :]
        return batch


def sketch(gradient: npt.NDArray[np.float32], seed: int, round_: int) -> tuple[float, ...]:
    """Add up coordinates with random signs in random buckets, the same ones on every device.

    Linear, and E||sketch||^2 = ||gradient||^2 with a relative deviation below sqrt(2 / SKETCH_SIZE) (a count
    sketch: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002): so
    norms of means over devices, and of distances from them, can be had of sketches.
    """
    rng = stream(seed, Purpose.PILOTS, round_=round_)
    buckets = rng.integers(SKETCH_SIZE, size=len(gradient))
    signs = 2.0 * rng.integers(2, size=len(gradient)) - 1
    sums = np.bincount(buckets, weights=signs * gradient, minlength=SKETCH_SIZE)
    return tuple(sums.tolist())


def step_weights(num_steps: float, momentum: float) -> float:
    """Return ||a||_1, how much the gradients of so many steps of SGD weigh together: tau without momentum.

    (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho) with momentum rho that begins at zero (FedNova,
    section 4, there with learning rate 1).
    """
    rho = momentum
    weights: float = (num_steps - rho * (1 - rho**num_steps) / (1 - rho)) / (1 - rho)
    return weights


def _optimiser(model: FlatModel, training: Training) -> torch.optim.Optimizer:
    """Make the optimiser; momentum and moments are its own and never leave the device."""
    parameters, lr, weight_decay = model.module.parameters(), training.learning_rate, training.weight_decay
    match training.optimiser:
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, momentum=training.momentum, weight_decay=weight_decay)
        case "adamw":  # Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019
            return torch.optim.AdamW(parameters, lr=lr, betas=training.adamw_betas, weight_decay=weight_decay)
