"""Local rounds that devices choose for themselves: against the same sums done again from the log of a run."""

from math import floor, sqrt

import numpy as np
import pytest
import torch
from rehearsal import experiment_of, rehearse
from torch import nn

from node.data import Share
from node.model import FlatModel
from node.planner import Planner
from node.train import Trainer
from protocol.frame import FLAG_LEAVES, Kind
from protocol.learning import Training

ROUNDS = 12
IDLE_W, KAPPA, BATCH, CPU_HZ = 0.01, 1e-28, 32, 1e9
CYCLES = (1e6, 2e6, 3e6, 5e6)

ADAPTIVE = {
    "rounds": ROUNDS,
    "training": {"local_rounds": "adaptive"},
    "device": {"cycles_per_sample": list(CYCLES), "idle_power_w": IDLE_W},
    "radio": {"fading": "none", "tx_power_dbm": 20},
}
E_J = [KAPPA * CPU_HZ**2 * cycles * BATCH for cycles in CYCLES]
T_S = [cycles * BATCH / CPU_HZ for cycles in CYCLES]


def local_rounds(it, device):
    """Return how many local rounds a device did in each round, by the seconds it computed."""
    return [round(report.spent.compute_air_s / T_S[device]) for report in it.reports[device]]


def radio_j(report):
    return sum(heard.tx_j + heard.rx_j for heard in report.heard.values())


def reserve(seen, rounds):
    deviation = np.std(seen, ddof=1) if len(seen) > 1 else 0.0
    return np.mean(seen) + 1.645 * deviation / sqrt(rounds)


def latest_ready_s(it, device, k):
    """Return when the last of a device and its neighbours had trained in a round."""
    both = [device, *(neighbour.device for neighbour in it.starts[device].neighbours)]
    return max(
        (it.reports[other][k - 1].spent.air_s if k else 0.0) + it.reports[other][k].spent.compute_air_s
        for other in both
        if k < len(it.reports[other])
    )


def decided(it, device, budget_j, budget_s):
    """Do each decision of a device again, from its reports and what it was told at the start."""
    reports = it.reports[device]
    prospect, ready_s = (
        it.starts[device].prospect,
        [latest_ready_s(it, device, k) for k in range(len(reports))],
    )
    e_j, t_s = E_J[device] + IDLE_W * T_S[device], T_S[device]
    at_most_j = radio_j(reports[0])  # without repeats every exchange is the dearest
    seen_j, seen_s, waited_s = [prospect.exchange_j], [prospect.exchange_air_s], [prospect.waiting_air_s]
    spent_j = clock_s = 0.0
    chosen = [prospect.local_rounds]
    for k, report in enumerate(reports):
        computing_j = report.spent.compute_j + IDLE_W * report.spent.compute_air_s
        left_j = budget_j - spent_j - computing_j
        left_s = budget_s - clock_s - report.spent.compute_air_s
        rounds = max(ROUNDS - 1 - k, 1)
        a_j, s_s, w_s = (reserve(seen, rounds) for seen in (seen_j, seen_s, waited_s))
        idle_s = reserve(seen_s, 1) + reserve(waited_s, 1)
        kept_j = 2 * max(at_most_j + IDLE_W * idle_s - np.mean(seen_j), 0)
        by_joules = ((left_j - a_j - kept_j) / rounds - a_j) / e_j
        by_seconds = ((left_s - s_s - w_s) / rounds - s_s) / t_s
        total_j = report.spent.compute_j + report.spent.idle_j + radio_j(report)
        seen_j.append(total_j - computing_j)
        seen_s.append(report.spent.air_s - ready_s[k])
        waited_s.append(ready_s[k] - clock_s - report.spent.compute_air_s)
        spent_j, clock_s = spent_j + total_j, report.spent.air_s
        # What the exchange between has left must do for the next one.
        next_s = reserve(seen_s, 1) + reserve(waited_s, 1) - np.mean(waited_s)
        next_j = at_most_j + IDLE_W * (reserve(seen_s, 1) + reserve(waited_s, 1))
        most = ((budget_j - spent_j - next_j) / e_j, (budget_s - clock_s - next_s) / t_s)
        chosen.append(max(min(by_joules, by_seconds, *most), 0))
    return chosen


BUDGETS = {
    "joules": ([0.3, 0.5, 0.4, 0.6], [np.inf] * 4),
    "seconds": ([np.inf] * 4, [5.0, 5.5, 6.0, 7.0]),
    "both": ([0.3, 0.5, 0.4, 0.6], [5.0, 5.5, 6.0, 7.0]),
}


@pytest.mark.parametrize("which", BUDGETS)
def test_local_rounds_are_the_share_of_what_meters_and_clock_have_left(which):
    joules, seconds = BUDGETS[which]
    it = rehearse(experiment_of(**ADAPTIVE, budget={"joules": joules, "seconds": seconds}))
    for device in range(4):
        again = decided(it, device, joules[device], seconds[device])
        done = local_rounds(it, device)
        assert len(set(done)) > 1 or which == "joules"
        for number, exact in zip(done, again[: len(done)], strict=True):
            # The last digit may round to the other side of a whole number.
            assert floor(exact - 1e-6) <= number <= floor(exact + 1e-6), (device, done, again)


@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
def test_time_that_fast_devices_would_wait_for_slow_ones_is_trained_in(scheme):
    """Of equal seconds all fill the same rounds: tau_i t_i + s = T / K, whoever is slow."""
    experiment = experiment_of(
        **ADAPTIVE, budget={"run_seconds": 6.0}, aggregation={"scheme": scheme, "chunks": 2}
    )
    it = rehearse(experiment)
    exchange_s = min(start.prospect.exchange_air_s for start in it.starts.values())
    for device in range(4):
        fits = (6.0 / ROUNDS - exchange_s) / T_S[device]
        assert it.rounds(device) == ROUNDS
        assert fits - 2 < np.mean(local_rounds(it, device)) <= fits, device
        assert it.air_s(device) <= 6.0


def test_joules_run_out_evenly_and_nearly_all_are_used():
    joules = [0.3, 0.5, 0.4, 0.6]
    it = rehearse(experiment_of(**ADAPTIVE, budget={"joules": joules}))
    for device in range(4):
        done = local_rounds(it, device)
        assert it.rounds(device) == ROUNDS
        assert max(done[1:]) - min(done[1:]) <= 2
        # Less than two exchanges and what rounding down leaves.
        rest_j = joules[device] - it.joules(device)
        assert 0 <= rest_j < 2 * radio_j(it.reports[device][0]) + 3 * E_J[device]


def test_repeats_that_come_and_go_do_not_let_local_rounds_swing():
    lossy = {"fading": "rayleigh", "tx_power_dbm": 0, "arq": "selective_repeat", "doppler_hz": 5.0}
    joules = [0.3, 0.5, 0.4, 0.6]
    it = rehearse(experiment_of(**ADAPTIVE | {"radio": lossy}, budget={"joules": joules}))
    for device in range(4):
        done = np.array(local_rounds(it, device))
        assert it.rounds(device) == ROUNDS
        assert np.abs(np.diff(done[1:])).max() <= 3, done
        assert it.joules(device) > 0.75 * joules[device]


class Overheard(Planner):
    """A planner that writes down what it was told of the others' local rounds."""

    heard = {}  # noqa: RUF012 - emptied by the test

    def learn(self, heard):
        super().learn(heard)
        self.heard.setdefault(self._radio.grid.slot, []).append((self._wanted, self._mean))


def test_the_mean_is_harmonic_over_those_of_the_neighbourhood_that_train_next(monkeypatch):
    """A path 0 - 1 - 2 with Metropolis weights of 1/3; device 2 is too poor to train in the end."""
    monkeypatch.setattr("node.agent.Planner", Overheard)
    Overheard.heard.clear()
    experiment = experiment_of(
        devices=3,
        rounds=8,
        graph={"kind": "star"},
        training={"local_rounds": "adaptive"},
        device={"idle_power_w": 0},
        radio={"fading": "none", "tx_power_dbm": 20},
        budget={"joules": [0.4, 0.2, 0.035]},
    )
    it = rehearse(experiment)
    hub, *leaves = (Overheard.heard[it.starts[device].slot] for device in range(3))
    assert [len(heard) for heard in (hub, *leaves)] == [8] * 3
    third = 1 / 3
    relayed = 0
    for k in range(7):
        tau = [hub[k][0], leaves[0][k][0], leaves[1][k][0]]
        relayed += tau[2] == 0
        for device, weights in enumerate(
            [(third, third, third), (third, 2 * third, 0), (third, 0, 2 * third)]
        ):
            told = [(w, t) for w, t in zip(weights, tau, strict=True) if w and t]
            expected = sum(w for w, _ in told) / sum(w / t for w, t in told)
            assert (hub, *leaves)[device][k][1] == pytest.approx(expected, rel=1e-6)
        # What was announced is what is done: one round ahead.
        trained = [round(it.reports[d][k + 1].spent.compute_air_s / 0.064) for d in range(3)]
        assert trained == tau
    assert relayed > 0
    assert it.rounds(2) == 8


def test_just_in_time_saves_the_square_of_the_frequency_and_meets_the_deadline():
    common = {
        "training": {"local_rounds": 3},
        "device": {"cycles_per_sample": [1e6, 1e6, 1e6, 5e6], "idle_power_w": 0},
        "budget": {"seconds": 4.0},
    }
    fast = rehearse(experiment_of(**common))
    slow = rehearse(experiment_of(**common | {"device": common["device"] | {"frequency": "just_in_time"}}))
    for device in range(4):
        cycles = 3 * 32 * common["device"]["cycles_per_sample"][device]
        assert slow.air_s(device) <= 4.0
        assert slow.rounds(device) == fast.rounds(device) == 6
        for report, full in zip(slow.reports[device], fast.reports[device], strict=True):
            cpu_hz = cycles / report.spent.compute_air_s
            assert 1e8 * (1 - 1e-9) <= cpu_hz <= 1e9 * (1 + 1e-9)
            assert report.spent.compute_j == pytest.approx(full.spent.compute_j * (cpu_hz / 1e9) ** 2)
        assert slow.joules(device) < fast.joules(device)
    assert slow.air_s(3) > 0.75 * 4.0  # it takes the time it has


def test_just_in_time_is_no_slower_than_where_idling_costs_what_computing_saves():
    """d/df (kappa f^2 + P / f) = 0 at f^3 = P / (2 kappa) = 2.16e26: 600 MHz."""
    experiment = experiment_of(
        device={"frequency": "just_in_time", "idle_power_w": 2 * 1e-28 * 6e8**3}, budget={"seconds": 1e4}
    )
    it = rehearse(experiment)
    for report in it.reports[0]:
        assert 2 * 32 * 2e6 / report.spent.compute_air_s == pytest.approx(6e8)


def test_fixed_local_rounds_send_what_they_always_sent():
    """59 float32 numbers in packets of 15 and a CRC; scalars, aligned, ride only where devices adapt."""
    payload = 4 * 59 + 4 * 4
    for settings, size in (({}, payload), ({"training": {"local_rounds": "adaptive"}}, payload + 16)):
        it = rehearse(experiment_of(budget={"joules": 10.0}, rounds=2, **settings))
        sizes = {len(data) for _, h, data in it.said[0] if h.kind is Kind.PARAMETERS}
        assert sizes == {size}
        assert not any(header.flags & FLAG_LEAVES for _, header, _ in it.said[0])


def quadratic_gap(averaging):
    """Train devices with unequal local rounds on unlike data; return the squared gradient norm of their mean.

    Softmax regression, full batches, exact averaging: what is left is the bias of unequal local rounds.
    """
    rng, taus = np.random.default_rng(0), (1, 1, 2, 4, 12)
    shares = []
    for device in range(len(taus)):
        y = torch.from_numpy(rng.choice(3, size=32, p=np.roll([0.8, 0.1, 0.1], device % 3)))
        centre = rng.standard_normal(4)
        x = torch.from_numpy(rng.standard_normal((32, 4)) + centre + np.eye(4)[y.numpy()]).float()
        shares.append(Share(x, y, x, y))
    training = Training(local_rounds="adaptive", averaging=averaging, learning_rate=0.05)
    common, trainers = torch.zeros(15), []
    for device, share in enumerate(shares):
        x = torch.zeros(15)
        module = nn.Linear(4, 3)
        module.weight, module.bias = nn.Parameter(x[:12].view(3, 4)), nn.Parameter(x[12:])
        trainers.append((x, Trainer(FlatModel(module, x), share, training, seed=1, device=device)))
    reference = len(taus) / sum(1 / tau for tau in taus)
    for _ in range(400):
        for (x, trainer), tau in zip(trainers, taus, strict=True):
            x.copy_(common)
            trainer.local_sgd(tau, reference)
        common = torch.stack([x for x, _ in trainers]).mean(0)
    weight = common.clone().requires_grad_()
    loss = sum(
        nn.functional.cross_entropy(share.x @ weight[:12].view(3, 4).T + weight[12:], share.y)
        for share in shares
    )
    (loss / len(shares)).backward()
    return float(weight.grad.square().sum())


def test_normalised_updates_take_the_bias_of_unequal_local_rounds_away():
    plain, normalised = quadratic_gap("plain"), quadratic_gap("normalised")
    assert normalised < plain / 10, (normalised, plain)
