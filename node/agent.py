"""One device, from Hello to Bye; `take_part` holds THE round loop.

Follow one parameter vector x: local SGD moves it, `exchanges.encode` turns it into radio packets,
`exchanges.exchange` sends those to every neighbour and brings back the weighted sum of what their
packets carried through the air, and `arrived.mix_` mixes that into x, which is the model.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from node.control import FLUSH_WALL_S, Control, Leave
from node.data import load, share
from node.exchanges import Exchanges
from node.mixing import mixing_step
from node.model import FlatModel, build
from node.pace import Pacer
from node.place import Place
from node.planner import Planner
from node.processor import take_processor
from node.stopwatch import Stopwatch
from node.train import Trainer
from node.transport.torchdist import TorchTransport
from node.transport.transport import Transport
from node.transport.zmq import Context, ZmqTransport
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.messages import CONSENSUS_SAMPLE, Done, Ready, Report, Welcome
from protocol.streams import Purpose, stream


def take_part(control: Control, welcome: Welcome, context: Context, place: Place) -> None:
    """Be one device of one run: get ready, go through the rounds, write the parameters, leave."""
    experiment, device = welcome.experiment, welcome.device
    if not os.access(welcome.run_dir, os.W_OK):
        raise BadInput(
            f"device {device} cannot write to {welcome.run_dir}, the run's folder: share it with all hosts"
        )
    torch.set_num_threads(experiment.runtime.torch_threads)
    processor = take_processor(welcome, place.ranked)
    mine = share(experiment.data, device, experiment.devices, seed=experiment.seed).on(processor)
    model = build_model(experiment).on(processor)
    trainer = Trainer(model, mine, experiment.training, seed=experiment.seed, device=device)
    layout = frame_layout(experiment, model.x.numel())
    with open_transport(control, welcome, context, place, frame_bytes=layout.payload_bytes) as transport:
        control.send(
            Ready(
                address=transport.address,
                schema_hash=model.schema_hash,
                num_parameters=layout.num_values,
                payload_bytes=layout.payload_bytes,
                num_samples=len(mine.y),
            )
        )
        start = control.wait_for_start(experiment.runtime.join_wall_s)
        exchanges = Exchanges(welcome, start, transport, layout, model.x)
        exchanges.follow(start.schedule)
        transport.meet(start, exchanges.awaited)
        radio, peers = exchanges.radio, exchanges.peers
        sample = consensus_sample(experiment.seed, layout.num_values).to(processor)
        watch, pacer = Stopwatch(), Pacer(experiment.runtime)
        planner = Planner(experiment, radio, start.prospect)
        x, rounds_done = model.x, 0
        try:
            for round_ in range(experiment.rounds):
                watch.restart()
                control.check()
                exchanges.reschedule(round_, control, watch)
                radio.begin_round()
                if not planner.begin_round(round_, exchanges.at_most_j):
                    break
                pilot = trainer.pilot(round_) if round_ < experiment.training.pilot_rounds else None
                # Back after a stop, a device that trained at its neighbours' speed would never reach them.
                trained = None if exchanges.is_behind(round_) else trainer.local_sgd(*planner.local_rounds)
                watch.lap("train")
                radio.compute(pilot.took if pilot else None)
                radio.compute(trained, planner.cpu_hz(round_))
                radio.said = planner.announce(round_, trained, exchanges.at_most_j)
                peers.leaves = not planner.can_go_on_after(round_, exchanges.at_most_j)
                if exchanges.follows_schedule:
                    pacer.hold(radio.air_s, peers, control)
                    watch.lap("pace")
                averaged = exchanges.average(x, round_, control, watch, contributes=not planner.relays)
                for sweep in range(planner.sweeps(averaged, exchanges.gossip_at_most_j)):
                    sent = exchanges.encode(x, round_, sweep)
                    watch.lap("encode")
                    pacer.hold(radio.air_s, peers, control)
                    watch.lap("pace")
                    arrived = exchanges.exchange(sent, round_, control, watch, sweep=sweep)
                    arrived.mix_(x, sent.xhat, mixing_step(experiment.aggregation, round_))
                    watch.lap("mix")
                    if radio.is_cut:
                        break  # neighbours wait for what this device cannot send any more
                pacer.hold(radio.air_s, peers, control)
                watch.lap("pace")
                planner.learn(radio.told)
                is_last = bool(planner.why_leaves) or round_ == experiment.rounds - 1
                evaluation = trainer.evaluate() if is_last or is_evaluated(experiment, round_) else None
                report = Report(
                    run_id=welcome.run_id,
                    device=device,
                    round=round_,
                    loss=trained.loss if trained else None,
                    accuracy=evaluation.accuracy if evaluation else None,
                    test_loss=evaluation.loss if evaluation else None,
                    bytes_sent=peers.bytes_sent(),
                    heard=radio.heard(),
                    dropped=peers.dropped(),
                    spent=radio.spent(),
                    averaged=averaged,
                    pilot=pilot.pilot if pilot else None,
                    deadlines_missed=pacer.missed(),
                    wall_s=watch.wall_s,
                    stages_wall_s=watch.stages(),
                )
                control.report(report, x[sample].cpu().numpy().tobytes())
                rounds_done += 1
                if is_last:
                    break
            peers.leaves = bool(planner.why_leaves)
            if peers.leaves or exchanges.follows_schedule:  # for whom it broke in the end waits for gossip
                peers.tell_gone_on(rounds_done, radio.air_s)
        except Leave:
            transport.break_off()
        path = save(model, welcome)
        done = Done(
            run_id=welcome.run_id,
            device=device,
            rounds=rounds_done,
            parameters=str(path),
            why_early=planner.why_leaves,
        )
        control.send(done)
        control.wait_for_bye()
        if control.absent and (planner.why_leaves or rounds_done == experiment.rounds):
            transport.flush(FLUSH_WALL_S)  # nobody told us that all are done: let the last frames go


@contextmanager
def open_transport(
    control: Control, welcome: Welcome, context: Context, place: Place, *, frame_bytes: int
) -> Iterator[Transport]:
    """Open what carries this device's frames, of about this size each."""
    experiment = welcome.experiment
    if experiment.transport.in_step:
        with TorchTransport.open(experiment, welcome.device, place, frame_bytes=frame_bytes) as in_step:
            yield in_step
        return
    with ZmqTransport.open(
        context,
        f"inproc://{welcome.run_id}/{welcome.device}"
        if experiment.transport.kind == "memory"
        else f"tcp://{place.host}:*",
        name=str(welcome.device),
        frame_bytes=frame_bytes,
        queue_bytes=experiment.transport.queue_bytes,
        num_pieces=num_pieces(experiment),
    ) as transport:
        transport.wake_on(control.socket)
        yield transport


def build_model(experiment: Experiment) -> FlatModel:
    """Build the model that every device starts from; raises BadInput if it does not fit the data."""
    dataset = load(experiment.data, experiment.seed)
    return build(experiment.model, dataset.sample_shape, dataset.num_classes, seed=experiment.seed)


def consensus_sample(seed: int, num_values: int) -> torch.Tensor:
    """Choose the coordinates that ride on every report, the same ones on every device."""
    rng = stream(seed, Purpose.CONSENSUS_SAMPLE)
    chosen = rng.choice(num_values, size=min(CONSENSUS_SAMPLE, num_values), replace=False)
    return torch.from_numpy(np.sort(chosen))


def num_pieces(experiment: Experiment) -> int:
    """Return how many frames may wait beside one a round: pieces of a tree or a ring, or older ones."""
    aggregation = experiment.aggregation
    pieces = max(aggregation.chunks, experiment.devices) if aggregation.is_scheduled else 0
    return pieces + aggregation.staleness_rounds


def is_evaluated(experiment: Experiment, round_: int) -> bool:
    """Say whether the test set is run after a round that is not the last; after that it always is."""
    every = experiment.training.evaluate_every
    return every > 0 and (round_ + 1) % every == 0


def save(model: FlatModel, welcome: Welcome) -> Path:
    """Write the parameters beside the run's other results; a reader never sees half a file."""
    path = Path(welcome.run_dir) / f"device-{welcome.device}.safetensors"
    partial = path.with_suffix(".partial")
    save_file(model.state(), partial, metadata={"run_id": welcome.run_id, "device": str(welcome.device)})
    return partial.rename(path)
