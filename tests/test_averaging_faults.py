"""Trees and rings with faults: who waits how long, who breaks off, and that all go on together.

The ether's clock stands still while frames are under way, so its time is that of the deadlines waited for.
"""

import numpy as np
import pytest
from devices import (
    LIVENESS_WALL_S,
    NUM_VALUES,
    experiment_of,
    header_of,
    incarnation_of,
    learned,
)
from ether import Ether, Gone, Port
from schedules import average, ring_places, scheduled, tree_places

from node.control import SLICE_WALL_S
from node.train import Trained
from node.transport.zmq import Delivery, Outgoing
from protocol.air import frame_layout
from protocol.codec import select
from protocol.frame import Kind, unpack
from protocol.messages import NeighbourDied, Schedule
from protocol.radio import Radio

IDEAL = Radio(scheme="ideal")
REPEATS = Radio(fading="none", arq="selective_repeat", max_attempts=6)
RADIOS = pytest.mark.parametrize("radio", [IDEAL, REPEATS], ids=["ideal", "repeats"])
KINDS = pytest.mark.parametrize("kind", ["tree", "ring"])
FAULTY = 1
NUM_ROUNDS, NEW_SCHEDULE = 5, 3
"""Rounds that are lived through, and that from which a second schedule holds."""
ISSUED_S = 5 * LIVENESS_WALL_S
"""When the second schedule is issued; everybody has asked for it by then."""
PLACES = {"tree": tree_places([None, 0, 1, 1, 0]), "ring": ring_places([0, 1, 2, 3, 4])}
"""Device 1 is in the middle of the tree."""
SURVIVORS = {"tree": tree_places({0: None, 2: 0, 3: 0, 4: 3}), "ring": ring_places([3, 0, 4, 2])}
FRAMES = {
    ("tree", "ideal"): 9,
    ("tree", "digital"): 18,
    ("ring", "ideal"): 8,
    ("ring", "digital"): 16,
}
"""Device 1 in a round: three up, three to each of two children, or eight steps; and an answer to each."""


class Notice:
    """A control plane that tells of deaths when they have happened."""

    def __init__(self, dead):
        self._dead = dead
        self._told = set()

    def news(self):
        new = sorted(self._dead - self._told)
        self._told.update(new)
        return [NeighbourDied(device=device, incarnation=incarnation_of(device)) for device in new]


class Dying(Port):
    """The port of a process that ends before it sends one frame too many; others hear of it in `dead`."""

    def __init__(self, ether, num_frames, dead=None):
        super().__init__(ether, FAULTY)
        self._left, self._dead = num_frames, dead if dead is not None else set()

    def lets_through(self, device, header):
        if self._left == 0:
            self._dead.add(FAULTY)
            raise Gone
        self._left -= 1
        return True


class Stalling(Port):
    """The port of a process that is stopped for a while before one of its frames, and then goes on."""

    def __init__(self, ether, num_frames, wall_s):
        super().__init__(ether, FAULTY)
        self._left, self._wall_s = num_frames, wall_s

    def lets_through(self, device, header):
        if self._left == 0:
            self.stall(self._wall_s)
        self._left -= 1
        return True


class Full(Port):
    """A port on which one queue is full for a moment: it refuses one frame."""

    def __init__(self, ether, kind, number):
        super().__init__(ether, FAULTY)
        self._kind, self._left = kind, number

    def send(self, device, header, outgoing):
        if unpack(header).kind is self._kind:
            self._left -= 1
            if self._left == -1:
                return False
        return super().send(device, header, outgoing)


def live(ether, experiment, kind, later, *, faulty=None, dead=frozenset()):
    """Let five devices live by PLACES, and from NEW_SCHEDULE on by `later`.

    Returns the pasts of those who came to the end, and when the last of them asked for the second schedule.
    """
    ports, asked_s = [Port(ether, number) for number in range(5)], []
    ports[FAULTY] = faulty or ports[FAULTY]

    def program(number):
        device = scheduled(experiment, PLACES[kind], number, ports[number])

        def follow(round_):
            if round_ == NEW_SCHEDULE:
                asked_s.append(ether.wall_s)
                ports[number].stall(ISSUED_S - ether.wall_s)
                device.exchanges.follow(Schedule(round=round_, place=later.get(number)))

        return lambda: device.live(range(NUM_ROUNDS), before_round=follow, control=Notice(dead))

    pasts = ether.run({number: program(number) for number in range(5)})
    assert ether.wall_s == ISSUED_S  # nobody waits any more
    return {number: past for number, past in pasts.items() if past is not None}, max(asked_s)


def broken(past):
    return [averaged and averaged.broken for averaged in past.averaged]


def breaks(pasts):
    """Return in which round each device broke off."""
    return tuple(broken(past).index(True) for past in pasts.values())


def check_that_all_go_on_together(pasts, num_members, missing=()):
    """All follow the first schedule, then gossip, then all follow the second one; `missing` are never heard.

    Whoever completed the round in which others break off does so in the next one; those others do not wait
    for each other then.
    """
    first, complete = min(breaks(pasts)), len(set(breaks(pasts))) == 1
    for past, at in zip(pasts.values(), breaks(pasts), strict=True):
        assert at in (first, first + 1)
        assert broken(past)[:at] == [False] * at
        assert broken(past)[at + 1 :] == [None] * (NEW_SCHEDULE - at - 1) + [False, False]
        for round_ in range(first if complete else first + 1, NEW_SCHEDULE):
            silent = {other for other, heard in past.heard[round_].items() if heard.missing}
            assert silent == set(missing)
        assert past.averaged[-1].contributors_min == num_members
        assert np.array_equal(past.x[-1], pasts[0].x[-1])


@RADIOS
@KINDS
def test_a_death_that_is_known_costs_no_deadline(kind, radio):
    """Whenever it happens: the others break off, tell each other by gossiping, and nobody waits."""
    experiment, ends = experiment_of(radio, devices=5, scheme=kind, chunks=3), set()
    for num_frames in range(0, FRAMES[kind, radio.scheme] + 3, 1 if radio is IDEAL else 2):
        ether, dead = Ether(5, seed=num_frames), set()
        dying = Dying(ether, num_frames, dead)
        pasts, waited_s = live(ether, experiment, kind, SURVIVORS[kind], faulty=dying, dead=dead)
        assert waited_s <= SLICE_WALL_S  # so often the coordinator is heard
        assert pasts.keys() == {0, 2, 3, 4}
        check_that_all_go_on_together(pasts, 4, missing=[FAULTY])
        ends.add(breaks(pasts))
    assert {(0, 0, 0, 0), (1, 1, 1, 1)} < ends  # all in one round, or some in the next one


@RADIOS
@KINDS
def test_a_death_that_is_not_known_costs_two_deadlines(kind, radio):
    """One until the schedule is known to be broken, one until gossip shows by whom; then none."""
    experiment = experiment_of(radio, devices=5, scheme=kind, chunks=3)
    for num_frames in range(0, FRAMES[kind, radio.scheme] + 3, 3):
        ether = Ether(5, seed=num_frames)
        dying = Dying(ether, num_frames)
        pasts, waited_s = live(ether, experiment, kind, SURVIVORS[kind], faulty=dying)
        assert waited_s == 2 * LIVENESS_WALL_S
        check_that_all_go_on_together(pasts, 4, missing=[FAULTY])


@RADIOS
@KINDS
def test_a_short_stall_breaks_nothing(kind, radio):
    experiment = experiment_of(radio, devices=5, scheme=kind, chunks=3)
    undisturbed, _ = live(Ether(5), experiment, kind, PLACES[kind])
    for num_frames in range(0, FRAMES[kind, radio.scheme], 5):
        ether, stall_s = Ether(5), 0.9 * LIVENESS_WALL_S
        stalling = Stalling(ether, num_frames, stall_s)
        pasts, waited_s = live(ether, experiment, kind, PLACES[kind], faulty=stalling)
        assert waited_s == stall_s
        for device, past in pasts.items():
            assert np.array_equal(past.x, undisturbed[device].x)
            assert broken(past) == [False] * NUM_ROUNDS


@RADIOS
@KINDS
@pytest.mark.parametrize("deadlines", [1.5, 2.5])
def test_a_long_stall_costs_at_most_two_deadlines_and_the_device_is_back(deadlines, kind, radio):
    """It gossips what it missed, and follows the next schedule with all others."""
    experiment = experiment_of(radio, devices=5, scheme=kind, chunks=3)
    for num_frames in range(0, FRAMES[kind, radio.scheme], 5):
        ether, stall_s = Ether(5, seed=num_frames), deadlines * LIVENESS_WALL_S
        stalling = Stalling(ether, num_frames, stall_s)
        pasts, waited_s = live(ether, experiment, kind, PLACES[kind], faulty=stalling)
        assert waited_s == stall_s  # it is the last to ask for the next schedule, and waits for nobody
        if deadlines < 2:  # back while the others still wait for its gossip
            check_that_all_go_on_together(pasts, 5)
        else:
            assert set(breaks(pasts)) <= {0, 1}
            for past in pasts.values():
                assert broken(past)[NEW_SCHEDULE:] == [False, False]
                assert past.averaged[-1].contributors_min == 5
                assert np.array_equal(past.x[-1], pasts[0].x[-1])


@RADIOS
@KINDS
def test_a_frame_that_a_full_queue_refuses_costs_no_deadline(kind, radio):
    """Whoever could not send breaks off at once, since the others wait for it in vain."""
    experiment = experiment_of(radio, devices=5, scheme=kind, chunks=3)
    num_frames = 9 if kind == "tree" else 8
    for number in range(num_frames):
        ether = Ether(5, seed=number)
        full = Full(ether, Kind.PARAMETERS, number)
        pasts, waited_s = live(ether, experiment, kind, PLACES[kind], faulty=full)
        assert waited_s == 0
        check_that_all_go_on_together(pasts, 5)


@KINDS
def test_an_answer_that_a_full_queue_refuses_costs_one_deadline(kind):
    experiment, ether = experiment_of(REPEATS, devices=5, scheme=kind, chunks=3), Ether(5)
    full = Full(ether, Kind.ACK, 2)
    pasts, waited_s = live(ether, experiment, kind, PLACES[kind], faulty=full)
    assert waited_s == LIVENESS_WALL_S
    check_that_all_go_on_together(pasts, 5)


def play(ports, ether, experiment, places, *, trained=None, num_rounds=1):
    """Let all devices average through these ports; return devices and pasts."""
    devices = [scheduled(experiment, places, number, ports[number]) for number in range(len(places))]
    pasts = ether.run(
        {
            d.number: lambda d=d: d.live(range(num_rounds), trained=(trained or {}).get(d.number))
            for d in devices
        }
    )
    return devices, pasts


@pytest.mark.parametrize(
    ("slow", "expected"),
    [(4, {0, 1, 2, 3}), (2, {0, 1, 3, 4}), (1, {0, 4}), (0, {0, 1, 2, 3, 4})],
    ids=["a leaf", "a leaf below another device", "with all below it", "the root"],
)
def test_what_comes_late_to_a_tree_is_left_out(slow, expected):
    """By the model's clock only. What waited for a late frame has one deadline more, and is in time.

    The mean that comes down is waited for, and a root that comes late finds all others there.
    """
    radio = Radio(fading="none")
    experiment = experiment_of(radio, devices=5, scheme="tree", chunks=3, deadline_air_s=5.0)
    ether = Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    trained = {slow: Trained(loss=None, samples=10_000, processor_s=0.0)}  # 20 seconds of computing
    _, pasts = play(ports, ether, experiment, PLACES["tree"], trained=trained)
    assert ether.wall_s == 0
    mean = np.mean([learned(device, 0) for device in expected], axis=0, dtype=np.float64)
    for past in pasts.values():
        (averaged,) = past.averaged
        assert (averaged.broken, averaged.blocks_kept) == (False, 0)
        assert averaged.contributors_min == averaged.contributors_mean == len(expected)
        np.testing.assert_allclose(past.x[0], mean, rtol=0, atol=1e-6)
        assert np.array_equal(past.x[0], pasts[0].x[0])


def test_what_comes_late_to_a_ring_is_left_out():
    experiment = experiment_of(Radio(fading="none"), devices=5, scheme="ring", deadline_air_s=5.0)
    ether = Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    trained = {2: Trained(loss=None, samples=10_000, processor_s=0.0)}
    _, pasts = play(ports, ether, experiment, PLACES["ring"], trained=trained)
    assert ether.wall_s == 0
    for past in pasts.values():
        (averaged,) = past.averaged
        assert (averaged.broken, averaged.blocks_kept) == (False, 0)
        assert averaged.contributors_min < 5
        assert np.array_equal(past.x[0], pasts[0].x[0])


def test_who_is_a_little_late_to_a_ring_misses_only_what_it_should_have_begun():
    """8 s late, and its later frames are not: each may wait for one more, so it has 5 s more in each step."""
    experiment = experiment_of(Radio(fading="none"), devices=5, scheme="ring", deadline_air_s=5.0)
    ether = Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    trained = {2: Trained(loss=None, samples=4_000, processor_s=0.0)}
    _, pasts = play(ports, ether, experiment, PLACES["ring"], trained=trained)
    for past in pasts.values():
        (averaged,) = past.averaged
        assert (averaged.broken, averaged.contributors_min) == (False, 4)
        assert averaged.contributors_mean == pytest.approx(5 - 1 / 5, abs=0.05)


class Lying(Port):
    """A port that writes what it likes in the place of the numbers of devices in its partial means."""

    def __init__(self, ether, part, counts):
        super().__init__(ether, FAULTY)
        self._part, self._counts = part, counts

    def send(self, device, header, outgoing):
        payload = outgoing.payload.copy()
        if unpack(header).part == self._part:
            payload[:14].view("<u2")[:] = self._counts
        return super().send(device, header, Outgoing(payload))


@pytest.mark.parametrize("counts", [0, 5, 65535])
def test_impossible_numbers_of_devices_count_as_none(counts):
    """Five there are, but then nobody else could be in the mean."""
    experiment, ether = experiment_of(IDEAL, devices=5, scheme="tree", chunks=3), Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    ports[FAULTY] = Lying(ether, 1, counts)  # of the first chunk, on its way up
    _, pasts = play(ports, ether, experiment, PLACES["tree"])
    mean = np.mean([learned(device, 0) for device in (0, 4)], axis=0, dtype=np.float64)[:100]
    for past in pasts.values():
        assert past.averaged[0].contributors_min == 2
        assert past.averaged[0].blocks_kept == 0
        np.testing.assert_allclose(past.x[0][:100], mean, rtol=0, atol=1e-6)
        assert np.array_equal(past.x[0], pasts[0].x[0])


def test_a_mean_of_too_many_is_none():
    experiment, ether = experiment_of(IDEAL, devices=5, scheme="tree", chunks=3), Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    ports[FAULTY] = Lying(ether, 2, 6)  # of the first chunk, on its way down
    _, pasts = play(ports, ether, experiment, PLACES["tree"])
    for device, past in pasts.items():
        assert past.averaged[0].blocks_kept == (7 if device in (2, 3) else 0)
        own = np.array_equal(past.x[0][:100], learned(device, 0)[:100])
        assert own == (device in (2, 3))


class Hostile(Port):
    """A port that sends all kinds of rubbish to everybody before each frame."""

    def __init__(self, ether, experiment):
        super().__init__(ether, FAULTY)
        self._wire = ether
        whole = frame_layout(experiment, NUM_VALUES)
        chunk = whole.cut(3)[0].layout
        frame = np.zeros(16 + chunk.payload_bytes, dtype=np.uint8)
        answer = np.zeros(1, dtype=np.uint8)
        again = select(frame[16:], chunk, np.array([0, 2]))
        self._malformed = [
            *(rubbish(experiment, frame, part=part) for part in (0, 12, 255, 65535)),
            rubbish(experiment, frame[:-1], part=1),
            rubbish(experiment, np.append(frame, np.uint8(0)), part=1),
            rubbish(experiment, np.zeros(0, dtype=np.uint8), part=2),
            rubbish(experiment, frame, part=1, payload_bytes=1),
            rubbish(experiment, frame, part=1, attempt=63),
            rubbish(experiment, again[:-4], part=5, attempt=2),
            rubbish(experiment, np.zeros(9, dtype=np.uint8), part=2, kind=Kind.ACK, modulation=0),
            rubbish(experiment, frame, part=1, kind=Kind.SCALE, modulation=0),
            rubbish(experiment, frame, part=1, epoch=9),
            rubbish(experiment, frame, part=1, incarnation=9),
            Delivery(str(FAULTY), b"rubbish", frame),
        ]
        self._uncalled_for = [
            rubbish(experiment, again, part=5, attempt=1),
            rubbish(experiment, answer, part=1, kind=Kind.ACK, modulation=0),
            rubbish(experiment, answer, part=6, kind=Kind.ACK, modulation=0),
        ]
        """Well made, but of what was never sent; to device 4, which has nothing to do with this one."""

    def send(self, device, header, outgoing):
        for receiver in (0, 2, 3, 4):
            for delivery in self._malformed + (self._uncalled_for if receiver == 4 else []):
                self._wire.send(receiver, delivery)
        return super().send(device, header, outgoing)


def rubbish(experiment, payload, **changes):
    return Delivery(str(FAULTY), header_of(experiment, FAULTY, payload, **changes).pack(), payload)


@RADIOS
@KINDS
def test_rubbish_changes_nothing_and_is_named(kind, radio):
    experiment, ether = experiment_of(radio, devices=5, scheme=kind, chunks=3), Ether(5)
    ports = [Port(ether, number) for number in range(5)]
    ports[FAULTY] = Hostile(ether, experiment)
    devices, pasts = play(ports, ether, experiment, PLACES[kind], num_rounds=2)
    undisturbed = average(experiment, PLACES[kind], 2)
    assert ether.wall_s == 0
    for device, past in pasts.items():
        assert np.array_equal(past.x, undisturbed[device].x)
        assert past.averaged == undisturbed[device].averaged
        if device != FAULTY:
            assert any(
                "another model or codec" in named for named in devices[device].exchanges.peers.dropped()
            )


@KINDS
def test_all_gossip_where_one_has_no_schedule(kind):
    """Its neighbours' chunks say nothing to it, and its gossip tells them that it does not follow."""
    experiment, ether = experiment_of(IDEAL, devices=5, scheme=kind, chunks=3), Ether(5)
    places = PLACES[kind]
    devices = [scheduled(experiment, places, number, Port(ether, number)) for number in range(5)]
    devices[FAULTY].exchanges.follow(None)
    pasts = ether.run({d.number: lambda d=d: d.live(range(1)) for d in devices})
    assert ether.wall_s == 0
    mean = np.mean([learned(device, 0) for device in range(5)], axis=0, dtype=np.float64)
    for device, past in pasts.items():
        assert broken(past) == [None if device == FAULTY else True]
        assert not any(heard.missing for heard in past.heard[0].values())
        np.testing.assert_allclose(past.x[0], mean, rtol=0, atol=1e-6)
    assert "another model or codec" in str(devices[FAULTY].exchanges.peers.dropped())
