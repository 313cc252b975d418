"""Analog gossip between real devices in one process: what adds up in the air, at what cost, and how late.

Intervals of what is random hold with 99 % for all cells of a test together (Bonferroni); seeds are fixed.
"""

from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import pytest
from devices import (
    NUM_VALUES,
    Device,
    Told,
    complete,
    experiment_of,
    header_of,
    incarnation_of,
    learned,
    live_over_sockets,
    live_together,
    mean_snr_db,
    neighbours_of,
    path,
    ring,
)
from ether import Ether, Faulty, Port, Script
from oracle import Oracle
from scipy.stats import chi2, norm

from benchmarks.consensus import CASES, run
from node.train import Trained
from node.transport.zmq import Delivery
from protocol.air import Transmission, frame_layout
from protocol.codec import side_bytes
from protocol.config import Aggregation
from protocol.frame import HEADER_BYTES, Kind
from protocol.messages import NeighbourDied
from protocol.radio import Analog, Radio

ERROR = 0.01
UNEVEN = np.array(
    [[0.55, 0.30, 0.10, 0.05], [0.30, 0.45, 0.00, 0.25], [0.10, 0.00, 0.50, 0.40], [0.05, 0.25, 0.40, 0.30]]
)
"""Weights that no two links share."""
BANDWIDTH_HZ = 1e6
POWER_W = 0.01  # 10 dBm
SYMBOLS_S = NUM_VALUES / 2 / BANDWIDTH_HZ
PARTS = pytest.mark.parametrize("superposition", ["over_the_air", "orthogonal"])


def loud(a, b):
    """So loud that noise is far below the rounding of float32."""
    return 200.0


def radio_of(*, fading="none", coherence_packets=0, access="tdma", **analog):
    knobs = Analog(**analog)
    return Radio(
        scheme="analog", fading=fading, coherence_packets=coherence_packets, access=access, analog=knobs
    )


def play(experiment, weights, program, *, snr_db=loud, ports=None, ether=None):
    """Let each device run a program of its own; return what each returned."""
    ether = ether or Ether(len(weights))
    ports = ports or [Port(ether, number) for number in range(len(weights))]
    devices = [Device(experiment, weights, number, port, snr_db=snr_db) for number, port in enumerate(ports)]
    return ether.run({device.number: partial(program, device) for device in devices})


def mix(device, round_, **changes):
    """Go through one round; return what x was before and after mixing."""
    sent, arrived = device.exchange(round_, **changes)
    before = device.x.numpy().copy()
    arrived.mix_(device.x, sent.xhat)
    return before, device.x.numpy().copy()


def set_to(device, x):
    """Return what a device must learn to be at x."""
    return (x - device.x.numpy()).astype(np.float32)


@dataclass
class Central:
    """What all devices do, computed in one place in float64 by whoever knows all channels; no noise."""

    experiment: object
    weights: np.ndarray
    snr_db: object = loud

    def __post_init__(self):
        self.oracle = Oracle(self.experiment, self.weights, snr_db=self.snr_db)
        self.layout = self.oracle.layout
        packets = self.experiment.radio.coherence_packets or self.layout.num_packets
        self.num_blocks = ceil(self.layout.num_packets / packets)
        self.starts = np.arange(0, NUM_VALUES, packets * self.layout.values_per_packet)
        self.sizes = np.diff(np.append(self.starts, NUM_VALUES))

    def gains(self, round_, sender, receiver):
        """Power gain of each block: it is heard in the receiver's slot."""
        one_by_one = self.experiment.radio.analog.superposition == "orthogonal"
        turn = neighbours_of(self.weights, receiver).index(sender) if one_by_one else 0
        mine = Transmission(round_, sender, self.oracle.colours[receiver], turn)
        return self.oracle.link(sender, receiver).block_gains(mine, self.num_blocks)

    def beta(self, round_, sender, receiver):
        """Say of each block whether the sender is on the air."""
        return self.gains(round_, sender, receiver) >= self.experiment.radio.analog.gain_threshold

    def lives(self, num_rounds):
        """Let x_i += sum_j W_ij beta_ij (x_j - x_i), or sum_j W_ij (c_ij - x_i) with c_ij = x_j if heard."""
        radio, num_devices = self.experiment.radio, len(self.weights)
        differences, every = radio.analog.payload == "differences", radio.analog.refresh_rounds
        xs, rounds = np.zeros((num_devices, NUM_VALUES)), []
        copies = np.zeros((num_devices, num_devices, NUM_VALUES))
        for round_ in range(num_rounds):
            xs = xs + [learned(device, round_) for device in range(num_devices)]
            refreshes = differences and every and (round_ + 1) % every == 0
            mixed = xs.copy()
            for i in range(num_devices):
                for j in neighbours_of(self.weights, i):
                    beta = np.repeat(self.beta(round_, j, i), self.sizes) | bool(refreshes)
                    copies[i, j] = np.where(beta, xs[j], copies[i, j])
                    mass = 1 if differences else beta
                    mixed[i] += self.weights[i, j] * mass * (copies[i, j] - xs[i])
            xs = mixed
            rounds.append(xs)
        return rounds


def test_the_central_computation_knows_the_theory_of_ideal_gossip():
    """It is what the devices are held against below."""
    xs = np.zeros((4, NUM_VALUES))
    for round_ in range(3):
        xs = UNEVEN @ (xs + [learned(device, round_) for device in range(4)])
    for payload in ("models", "differences"):
        found = Central(experiment_of(radio_of(payload=payload)), UNEVEN).lives(3)[-1]
        np.testing.assert_allclose(found, xs, atol=1e-12)


@PARTS
@pytest.mark.parametrize(
    "knobs", [{}, {"payload": "differences", "refresh_rounds": 0}], ids=["models", "differences"]
)
def test_without_noise_and_fading_it_is_ideal_gossip(superposition, knobs):
    """To the rounding of float32: numbers of some 8, and some 20 operations of 6e-8 on each."""
    radio = radio_of(superposition=superposition, **knobs)
    found = live_together(Ether(4), experiment_of(radio), UNEVEN, 4, snr_db=loud)
    ideal = live_together(Ether(4), experiment_of(Radio(scheme="ideal")), UNEVEN, 4)
    for device, past in found.items():
        np.testing.assert_allclose(past.x, ideal[device].x, rtol=0, atol=1e-5)
        assert all(of_it.missing == "" for heard in past.heard for of_it in heard.values())


FADES = {
    "whole rounds": {"coherence_packets": 0},
    "few packets": {"coherence_packets": 2},
    "one packet": {"coherence_packets": 1},
}


@PARTS
@pytest.mark.parametrize("fades", FADES)
@pytest.mark.parametrize("payload", ["models", "differences"])
def test_a_silent_block_is_missing_mass(superposition, fades, payload):
    """Of differences it leaves the receiver's copy as it was: the next difference makes up for it."""
    radio = radio_of(
        fading="rayleigh",
        superposition=superposition,
        gain_threshold=0.6,
        payload=payload,
        refresh_rounds=5,
        **FADES[fades],
    )
    experiment, num_rounds = experiment_of(radio), 7
    central = Central(experiment, UNEVEN)
    pasts = live_together(Ether(4), experiment, UNEVEN, num_rounds, snr_db=loud)
    for round_, xs in enumerate(central.lives(num_rounds)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=3e-5)
    packets = np.minimum(FADES[fades]["coherence_packets"] or 10**6, central.layout.num_packets)
    lost = []
    for device, past in pasts.items():
        for round_, heard in enumerate(past.heard):
            if payload == "differences" and round_ == 4:  # the refresh
                assert all(of_it.packets_lost == 0 for of_it in heard.values())
                continue
            for other, of_it in heard.items():
                silent = ~np.repeat(central.beta(round_, other, device), packets)[
                    : central.layout.num_packets
                ]
                assert of_it.packets_lost == np.count_nonzero(silent)
                assert of_it.packets_sent == central.layout.num_packets
                lost.append(of_it.packets_lost / central.layout.num_packets)
    assert 0.2 < np.mean(lost) < 0.8  # or it would prove nothing


@PARTS
def test_fades_of_whole_rounds_silence_both_directions_so_the_mean_is_kept(superposition):
    radio = radio_of(fading="rayleigh", superposition=superposition, gain_threshold=0.6)
    pasts = live_together(Ether(4), experiment_of(radio), UNEVEN, 6, snr_db=loud)
    lost = {
        (device, other): [heard[other].packets_lost for heard in past.heard]
        for device, past in pasts.items()
        for other in past.heard[0]
    }
    assert all(lost[one, other] == lost[other, one] for one, other in lost)
    assert len({tuple(of_link) for of_link in lost.values()}) > 2
    assert any(map(any, lost.values()))
    mean = np.mean([past.x[-1] for past in pasts.values()], axis=0, dtype=np.float64)
    all_learned = np.mean(
        [sum(learned(device, round_).astype(np.float64) for round_ in range(6)) for device in range(4)],
        axis=0,
    )
    np.testing.assert_allclose(mean, all_learned, rtol=0, atol=3e-6)


NOISY = {
    "models": radio_of(fading="rayleigh", coherence_packets=2, gain_error_variance=0.05),
    "one after the other": radio_of(fading="rayleigh", superposition="orthogonal"),
    "differences": radio_of(
        fading="rayleigh",
        coherence_packets=4,
        payload="differences",
        refresh_rounds=3,
        gain_error_variance=0.01,
    ),
}


@pytest.mark.parametrize("radio", NOISY)
def test_the_order_of_arrival_changes_not_one_bit(radio):
    experiment, weights = experiment_of(NOISY[radio], devices=5), complete(5)
    first = live_over_sockets("inproc", experiment, weights, num_rounds=5)
    lives = [live_over_sockets("tcp", experiment, weights, num_rounds=5)]
    orders = set()
    for seed in range(4):
        ether = Ether(5, seed)
        lives.append(live_together(ether, experiment, weights, num_rounds=5))
        orders.add(tuple(ether.arrivals))
        assert ether.wall_s == 0  # nothing was cut by the wall clock
    assert len(orders) == 4
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x, first[device].x)
            assert past.heard == first[device].heard
            assert past.spent == first[device].spent


@PARTS
@pytest.mark.parametrize("coherence_packets", [0, 2])
def test_the_noise_has_the_energy_of_the_theory(superposition, coherence_packets):
    """Per block nu^2 = max_j W^2 ||s||^2 / (SNR_j g_j) over the air, one after the other the sum over j.

    Residuals over their deviation are N(0, 1): their squares add up to chi-squared. Those of different
    rounds and devices do not correlate, or they would share a stream.
    """
    radio = radio_of(
        fading="rayleigh",
        coherence_packets=coherence_packets,
        superposition=superposition,
        gain_threshold=0.3,
    )
    experiment, num_rounds = experiment_of(radio), 20
    central = Central(experiment, UNEVEN, mean_snr_db)
    xs = [(1 + device) * learned(device, 0) for device in range(4)]

    def program(device):
        return [mix(device, round_, x=set_to(device, xs[device.number])) for round_ in range(num_rounds)]

    rows, square, degrees = [], 0.0, 0
    energies = np.array([np.add.reduceat(x.astype(np.float64) ** 2, central.starts) for x in xs])
    for i, past in play(experiment, UNEVEN, program, snr_db=mean_snr_db).items():
        for round_, (before, after) in enumerate(past):
            residual, needs = after.astype(np.float64) - before, []
            for j in neighbours_of(UNEVEN, i):
                beta, gains = central.beta(round_, j, i), central.gains(round_, j, i)
                residual -= (
                    UNEVEN[i, j] * np.repeat(beta, central.sizes) * (xs[j].astype(np.float64) - before)
                )
                snr = 10 ** (mean_snr_db(i, j) / 10) * gains
                needs.append(np.where(beta, UNEVEN[i, j] ** 2 * energies[j] / snr, 0))
            nu2 = np.max(needs, axis=0) if superposition == "over_the_air" else np.sum(needs, axis=0)
            deviation = np.sqrt(np.repeat(nu2 / central.sizes, central.sizes))
            assert np.abs(residual[deviation == 0]).max(initial=0) < 1e-5  # nobody on the air: no noise
            normal = residual[deviation > 0] / deviation[deviation > 0]
            square, degrees = square + np.sum(normal**2), degrees + len(normal)
            if len(normal) == NUM_VALUES:
                rows.append(normal)
    assert chi2.ppf(ERROR / 2 / 4, degrees) < square < chi2.isf(ERROR / 2 / 4, degrees)
    assert degrees > 0.8 * 4 * num_rounds * NUM_VALUES
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    bound = norm.isf(ERROR / 2 / 4 / len(correlations)) / np.sqrt(NUM_VALUES)
    assert np.abs(correlations).max() < bound


def test_gain_errors_have_the_variance_asked_for():
    """With one neighbour a block's residual is W |eps| ||s||; 2 |eps|^2 / v is chi-squared of 2 degrees."""
    variance, num_rounds = 0.1, 20
    radio = radio_of(coherence_packets=1, gain_error_variance=variance)
    experiment, weights = experiment_of(radio, devices=3), path(3)
    starts = Central(experiment, weights).starts
    xs = [learned(device, 0) for device in range(3)]

    def program(device):
        return [mix(device, round_, x=set_to(device, xs[device.number])) for round_ in range(num_rounds)]

    squares, pasts = [], play(experiment, weights, program)
    for i in (0, 2):  # both hear the one in the middle, each with errors of its own
        sent = xs[1].astype(np.float64) / 3
        for before, after in pasts[i]:
            residual = after - (before * 2 / 3 + sent)
            squares.append(np.add.reduceat(residual**2, starts) / np.add.reduceat(sent**2, starts))
    squares = np.concatenate(squares)
    assert len(np.unique(squares.round(6))) > 0.98 * len(squares)  # every block has an error of its own
    statistic, degrees = 2 * np.sum(squares) / variance, 2 * len(squares)
    assert chi2.ppf(ERROR / 2, degrees) < statistic < chi2.isf(ERROR / 2, degrees)


@PARTS
def test_a_damped_step_scales_the_noise(superposition):
    """The move is g times what it would be: the noise's energy is g^2 of it, from the same draw."""
    xs, g, pasts = [learned(device, 0) for device in range(4)], 0.3, {}
    for step in (1.0, g):
        radio = radio_of(superposition=superposition)
        experiment = experiment_of(radio).model_copy(update={"aggregation": Aggregation(step=step)})

        def program(device):
            return device.live(range(1)).x[0]

        pasts[step] = play(experiment, UNEVEN, program, snr_db=mean_snr_db)
    for i in range(4):
        pull = UNEVEN[i] @ np.array(xs, dtype=np.float64) - xs[i]
        noise = pasts[1.0][i] - xs[i] - pull
        damped = pasts[g][i] - xs[i] - g * pull
        np.testing.assert_allclose(damped, g * noise, rtol=0, atol=1e-5)
        assert np.linalg.norm(damped) == pytest.approx(g * np.linalg.norm(noise), rel=1e-4)
        assert np.linalg.norm(noise) > 0.1


def norms_s(num_blocks=1):
    """Airtime of the energies of an analog frame, or of the answer: BPSK, one bit a symbol."""
    return 8 * (HEADER_BYTES + 4 * num_blocks) / BANDWIDTH_HZ


def next_start_s(ready_s, offset_s, period_s):
    """Walk through the slots one by one."""
    start_s = offset_s
    while start_s < ready_s - 1e-12:
        start_s += period_s
    return start_s


def samples(device, round_):
    """So many samples does a device train on: other numbers each time; each takes 2 ms."""
    return 1 + (3 * device + 5 * round_) % 7


COMPUTE_S = 0.002


def timed(device, num_rounds=3):
    """Live through rounds that take time; return the clock after each."""
    clocks_s = []
    for round_ in range(num_rounds):
        mix(device, round_, trained=Trained(None, samples(device.number, round_), 0.0))
        clocks_s.append(device.exchanges.radio.spent().air_s)
    return clocks_s


GRAPHS = {"path": (path(4), [0, 1, 2, 0], 3), "ring": (ring(5), [0, 1, 2, 3, 4], 5)}
"""Weights, colours and how many there are."""


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("access", ["tdma", "parallel"])
def test_over_the_air_all_begin_when_the_last_is_ready_in_the_receivers_slot(graph, access):
    weights, colours, num_slots = GRAPHS[graph]
    num_devices = len(weights)
    found = play(experiment_of(radio_of(access=access), devices=num_devices), weights, timed)
    turn_s = SYMBOLS_S + 3 * norms_s()  # two neighbours tell their energies, one answer
    clocks_s = [0.0] * num_devices
    for round_ in range(3):
        ready_s = [clock_s + COMPUTE_S * samples(i, round_) for i, clock_s in enumerate(clocks_s)]
        starts_s = []
        for i in range(num_devices):
            last_s = max(ready_s[j] for j in neighbours_of(weights, i))
            slotted_s = next_start_s(last_s, colours[i] * turn_s, num_slots * turn_s)
            starts_s.append(slotted_s if access == "tdma" else last_s)
        clocks_s = [
            turn_s + max(starts_s[j] for j in [i, *neighbours_of(weights, i)]) for i in range(num_devices)
        ]
        assert [found[i][round_] for i in range(num_devices)] == pytest.approx(clocks_s, rel=1e-12)


@pytest.mark.parametrize("graph", GRAPHS)
def test_one_after_the_other_each_begins_in_its_own_turn_of_the_receivers_slot(graph):
    weights, colours, num_slots = GRAPHS[graph]
    num_devices = len(weights)
    radio = radio_of(superposition="orthogonal")
    found = play(experiment_of(radio, devices=num_devices), weights, timed)
    turn_s = SYMBOLS_S + 2 * norms_s()  # one neighbour tells its energy, one answer
    clocks_s = [0.0] * num_devices
    for round_ in range(3):
        ready_s = [clock_s + COMPUTE_S * samples(i, round_) for i, clock_s in enumerate(clocks_s)]
        ends_s = list(ready_s)
        for i in range(num_devices):
            for turn, j in enumerate(neighbours_of(weights, i)):
                offset_s = (2 * colours[i] + turn) * turn_s  # two turns a slot: the largest degree
                end_s = turn_s + next_start_s(ready_s[j], offset_s, 2 * num_slots * turn_s)
                ends_s[i], ends_s[j] = max(ends_s[i], end_s), max(ends_s[j], end_s)
        clocks_s = ends_s
        assert [found[i][round_] for i in range(num_devices)] == pytest.approx(clocks_s, rel=1e-12)


def amplitudes_from(experiment, sender, x, **changes):
    """Return the delivery that carries numbers and their energy."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = np.zeros(side_bytes(4) + layout.body_bytes, dtype=np.uint8)
    payload[:4].view("<f4")[:] = np.sum(x.astype(np.float64) ** 2)
    payload[side_bytes(4) :].view("<f4")[:] = x
    return Delivery(str(sender), header_of(experiment, sender, payload, **changes).pack(), payload)


def scale_from(experiment, sender, share, **changes):
    """Return the delivery that says which share of its power the other one's signal was given."""
    payload = np.array([share], dtype="<f4").view(np.uint8)
    header = header_of(experiment, sender, payload, kind=Kind.SCALE, **changes)
    return Delivery(str(sender), header.pack(), payload)


@pytest.mark.parametrize(("share", "sides"), [(np.nan, 2), (-1.0, 1)], ids=["silent in its fade", "too late"])
def test_who_is_not_summed_pays_for_its_norms_only_if_somebody_listened(share, sides):
    """One part is this device's own answer to its neighbour, which it gives in any case."""
    experiment = experiment_of(radio_of(payload="differences", refresh_rounds=0), devices=2)
    script = Script(amplitudes_from(experiment, 1, learned(1, 0)), scale_from(experiment, 1, share))
    device = Device(experiment, complete(2), 0, script, snr_db=loud)
    device.exchange(0)
    of_it = device.exchanges.radio.heard()[1]
    assert of_it.tx_air_s == pytest.approx(sides * norms_s(), rel=1e-12)
    assert of_it.tx_j == pytest.approx(POWER_W * sides * norms_s(), rel=1e-6)
    assert of_it.rx_air_s == pytest.approx(SYMBOLS_S + sides * norms_s(), rel=1e-12)


def test_a_fade_longer_than_the_frame_is_one_block():
    lives = [
        live_together(Ether(4), experiment_of(radio_of(coherence_packets=packets)), UNEVEN, 2)
        for packets in (10**20, 0)
    ]
    for number, past in lives[0].items():
        assert all((one == other).all() for one, other in zip(past.x, lives[1][number].x, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_answer_tells_the_senders_clock_and_what_it_has_spent(share):
    experiment = experiment_of(radio_of(), devices=2)
    begun_s = 0.03
    script = Script(
        amplitudes_from(experiment, 1, learned(1, 0)), scale_from(experiment, 1, share, air_s=begun_s)
    )
    device = Device(experiment, complete(2), 0, script, snr_db=loud)
    device.exchange(0)
    turn_s = SYMBOLS_S + 2 * norms_s()
    assert device.exchanges.radio.spent().air_s == pytest.approx(begun_s + turn_s, rel=1e-12)
    of_it = device.exchanges.radio.heard()[1]
    assert of_it.tx_j == pytest.approx(POWER_W * (share * SYMBOLS_S + 2 * norms_s()), rel=1e-6)
    assert of_it.tx_air_s == pytest.approx(SYMBOLS_S + 2 * norms_s(), rel=1e-12)


@pytest.mark.parametrize("energy", [-1.0, np.nan, np.inf])
def test_an_energy_that_cannot_be_is_not_believed(energy):
    """No power could be controlled to it, so its sender is taken as silent, and told so."""
    experiment = experiment_of(radio_of(), devices=2)
    frame = amplitudes_from(experiment, 1, learned(1, 0))
    frame.payload[:4].view("<f4")[:] = energy
    script = Script(frame, scale_from(experiment, 1, 1.0))
    device = Device(experiment, complete(2), 0, script, snr_db=loud)
    _, arrived = device.exchange(0)
    assert not arrived.m.any()
    assert not arrived.s.any()
    assert device.exchanges.radio.heard()[1].packets_lost == device.layout.num_packets
    [share] = [payload.view("<f4") for _, header, payload in script.said if header.kind is Kind.SCALE]
    assert np.isnan(share).all()


@PARTS
def test_every_joule_by_hand(superposition):
    """On a path of three, two senders share the air of the one in the middle."""
    weights, snr_db = path(3), {(0, 1): 5.0, (1, 2): 12.0}
    experiment = experiment_of(radio_of(superposition=superposition), devices=3)
    xs = [(3 - device) * learned(device, 0) for device in range(3)]

    def program(device):
        mix(device, 0, x=xs[device.number])
        return device.exchanges.radio.heard()

    heard = play(experiment, weights, program, snr_db=lambda a, b: snr_db[min(a, b), max(a, b)])
    needs = {
        j: np.sum(xs[j].astype(np.float64) ** 2) / 10 ** (snr_db[min(j, 1), max(j, 1)] / 10) for j in (0, 2)
    }
    for j in (0, 2):
        share = needs[j] / max(needs.values()) if superposition == "over_the_air" else 1.0
        # The data at its share of the power; its energy, and its answer, at full power.
        assert heard[j][1].tx_j == pytest.approx(POWER_W * (share * SYMBOLS_S + 2 * norms_s()), rel=1e-6)
        # A lone sender has full power. Over the air one answer is for both, else each turn has its own.
        sides = 1.5 if superposition == "over_the_air" else 2
        assert heard[1][j].tx_j == pytest.approx(POWER_W * (SYMBOLS_S + sides * norms_s()), rel=1e-6)
        # Each hears a signal, the norms of who sends it, and the answer to its own; two that add up are one.
        assert heard[j][1].rx_air_s == pytest.approx(SYMBOLS_S + 2 * norms_s(), rel=1e-6)
        signal_s = SYMBOLS_S / 2 if superposition == "over_the_air" else SYMBOLS_S
        assert heard[1][j].rx_air_s == pytest.approx(signal_s + 2 * norms_s(), rel=1e-6)
    assert min(needs.values()) < 0.9 * max(needs.values())


@PARTS
@pytest.mark.parametrize("payload", ["models", "differences"])
def test_nobody_ever_sends_above_its_power(superposition, payload):
    radio = radio_of(fading="rayleigh", coherence_packets=2, superposition=superposition, payload=payload)
    pasts = live_together(Ether(4), experiment_of(radio), UNEVEN, 12)
    shares = [
        of_it.tx_j / (POWER_W * of_it.tx_air_s)
        for past in pasts.values()
        for heard in past.heard
        for of_it in heard.values()
        if of_it.tx_air_s
    ]
    assert max(shares) <= 1 + 1e-6
    assert (min(shares) < 0.9) == (superposition == "over_the_air")


@PARTS
@pytest.mark.parametrize("payload", ["models", "differences"])
def test_a_dead_neighbour_costs_no_more_than_its_frame(superposition, payload):
    radio = radio_of(superposition=superposition, payload=payload, refresh_rounds=0)
    experiment, ether = experiment_of(radio, devices=3), Ether(3)
    ports = [Port(ether, number) for number in range(3)]

    def program(device):
        if device.number == 1:
            return None
        told = Told(NeighbourDied(device=1, incarnation=incarnation_of(1)))
        return device.live(range(3), control=told)

    pasts = play(experiment, complete(3), program, ether=ether, ports=ports)
    assert ether.wall_s == 0
    layout = frame_layout(experiment, NUM_VALUES)
    frame, answer = HEADER_BYTES + side_bytes(4) + layout.body_bytes, HEADER_BYTES + 4
    turn_s = SYMBOLS_S + (3 if superposition == "over_the_air" else 2) * norms_s()
    turns = 1 if superposition == "over_the_air" else 2
    for number in (0, 2):
        past = pasts[number]
        assert past.bytes_sent == [2 * frame + answer, frame + answer, frame + answer]
        for heard in past.heard:
            of_it = heard[1]
            assert (of_it.missing, of_it.packets_lost, of_it.attempts) == ("dead", 0, 0)
            assert (of_it.tx_air_s, of_it.rx_air_s, of_it.tx_j, of_it.rx_j) == (0, 0, 0, 0)
        # Devices 0 and 2 hear each other in their slots 0 and 2, a superframe after the other.
        place = (3 - 1) * turns
        starts_s = [(place + 3 * turns * round_) * turn_s for round_ in range(3)]
        assert past.air_s == pytest.approx([start_s + turn_s for start_s in starts_s])
    mass = 2 / 3 if payload == "differences" else 1 / 3  # of a copy that stays as it was: at zero
    expected = learned(0, 0) + (learned(2, 0) / 3 - mass * learned(0, 0))
    np.testing.assert_allclose(pasts[0].x[0], expected, atol=1e-5)


LATE_SAMPLES = {(2, 0): 15, (0, 1): 11, (1, 1): 11}
"""Device 2 is late in round 0; in round 1 the others take their time, and it catches up."""


def late_in_round_0(device, round_):
    return Trained(None, LATE_SAMPLES.get((device.number, round_), 1), 0.0)


@PARTS
@pytest.mark.parametrize("payload", ["models", "differences"])
def test_who_is_late_is_missing_mass(superposition, payload):
    """And of differences its copy stays where it was, at both ends: the next ones make up for it."""
    turns, norms = (1, 3) if superposition == "over_the_air" else (2, 2)
    superframe_s = 3 * turns * (SYMBOLS_S + norms * norms_s())
    radio = radio_of(superposition=superposition, payload=payload, refresh_rounds=0)
    experiment = experiment_of(radio, devices=3, deadline_air_s=1.9 * superframe_s)
    central, ether = Central(experiment, complete(3)), Ether(3)
    heard_of_it = {}

    def program(device):
        past = []
        for round_ in range(3):
            past.append(mix(device, round_, trained=late_in_round_0(device, round_))[1])
            heard_of_it[device.number, round_] = device.exchanges.radio.heard()
        return past

    def beta(round_, sender, receiver):
        return np.array([not (round_ == 0 and sender == 2)])

    central.beta = beta
    pasts = play(experiment, complete(3), program, ether=ether)
    assert ether.wall_s == 0
    for round_, xs in enumerate(central.lives(3)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past[round_], xs[device], rtol=0, atol=1e-5)
            for other, of_it in heard_of_it[device, round_].items():
                late = not beta(round_, other, device).all()
                assert of_it.missing == ("air" if late else "")
                assert of_it.packets_lost == (central.layout.num_packets if late else 0)
    answer_s = norms_s() / 2 if superposition == "over_the_air" else norms_s()
    for device in (0, 1):  # nobody listened to it, so all that it radiated is its own answer
        assert heard_of_it[2, 0][device].tx_j == pytest.approx(POWER_W * answer_s)


@PARTS
@pytest.mark.parametrize(("turns", "missing"), [(2.9, "air"), (3.1, "")])
def test_in_time_is_what_is_over_before_the_deadline(superposition, turns, missing):
    """Ready after one and a half turns, the neighbour sends in the third, device 0's second slot."""
    turn_s = SYMBOLS_S + 2 * norms_s()
    radio = radio_of(superposition=superposition)
    experiment = experiment_of(radio, devices=2, deadline_air_s=turns * turn_s)
    script = Script(
        amplitudes_from(experiment, 1, learned(1, 0), air_s=1.5 * turn_s), scale_from(experiment, 1, 1.0)
    )
    device = Device(experiment, complete(2), 0, script, snr_db=loud)
    device.exchange(0)
    assert device.exchanges.radio.heard()[1].missing == missing


@PARTS
def test_the_others_wait_for_who_is_late_as_long_as_it_could_still_be_in_time(superposition):
    """Or they would know the future. Both stop waiting in the last slot that ends before the deadline."""
    turns, norms = (1, 3) if superposition == "over_the_air" else (2, 2)
    turn_s = SYMBOLS_S + norms * norms_s()
    superframe_s = 3 * turns * turn_s
    deadline_s = COMPUTE_S + 2.9 * superframe_s
    experiment = experiment_of(
        radio_of(superposition=superposition), devices=3, deadline_air_s=2.9 * superframe_s
    )

    def program(device):
        mix(device, 0, trained=late_in_round_0(device, 0))
        return device.exchanges.radio.spent().air_s

    clocks_s = play(experiment, complete(3), program)
    latest_s = []
    for device in (0, 1):
        start_s = (device * turns + turns - 1) * turn_s  # the turn of device 2 is the last one
        while start_s + superframe_s + turn_s <= deadline_s:
            start_s += superframe_s
        latest_s.append(start_s)
    if superposition == "over_the_air":  # they send to each other in that slot
        assert [clocks_s[0], clocks_s[1]] == pytest.approx([max(latest_s) + turn_s] * 2, rel=1e-12)
    else:
        assert [clocks_s[0], clocks_s[1]] == pytest.approx(latest_s, rel=1e-12)


def values_said(port, round_):
    """Return the amplitudes that a device sent to each neighbour in a round."""
    return {
        device: payload[-4 * NUM_VALUES :].view("<f4")
        for device, header, payload in port.said
        if header.kind is Kind.PARAMETERS and header.round == round_
    }


@PARTS
def test_differences_are_from_what_the_receiver_holds(superposition):
    """What is said, added up, is the sender's copy; what is mixed in is the receiver's."""
    radio = radio_of(
        fading="rayleigh",
        superposition=superposition,
        gain_threshold=0.6,
        payload="differences",
        refresh_rounds=0,
        coherence_packets=2,
    )
    experiment, ether = experiment_of(radio), Ether(4)
    ports = [Port(ether, number) for number in range(4)]
    central = Central(experiment, UNEVEN)
    arrived_s = {}

    def program(device):
        past = []
        for round_ in range(5):
            sent, arrived = device.exchange(round_)
            arrived_s[device.number, round_] = arrived.s.numpy().astype(np.float64)
            past.append(device.x.numpy().astype(np.float64))
            arrived.mix_(device.x, sent.xhat)
        return past

    pasts = play(experiment, UNEVEN, program, ports=ports, ether=ether)
    copies = np.zeros((4, 4, NUM_VALUES))
    for round_ in range(5):
        for i in range(4):
            for j in neighbours_of(UNEVEN, i):
                change = pasts[j][round_] - copies[i, j]
                np.testing.assert_allclose(values_said(ports[j], round_)[i], change, rtol=0, atol=1e-6)
                beta = np.repeat(central.beta(round_, j, i), central.sizes)
                copies[i, j] = np.where(beta, pasts[j][round_], copies[i, j])
            held = sum(UNEVEN[i, j] * copies[i, j] for j in neighbours_of(UNEVEN, i))
            np.testing.assert_allclose(arrived_s[i, round_], held, rtol=0, atol=3e-6)


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
def test_a_refresh_resets_the_copies_of_both_ends_exactly(fading):
    """However noisy the rounds before it were, and however deep the fades."""
    radio = radio_of(
        fading=fading, gain_threshold=0.9, payload="differences", refresh_rounds=4, gain_error_variance=0.1
    )
    experiment, ether = experiment_of(radio), Ether(4)
    ports = [Port(ether, number) for number in range(4)]

    def program(device):
        past = []
        for round_ in range(9):
            sent, arrived = device.exchange(round_)
            past.append((device.x.numpy().copy(), arrived.s.numpy().copy(), arrived.m.copy()))
            arrived.mix_(device.x, sent.xhat)
        return past

    pasts = play(experiment, UNEVEN, program, ports=ports, ether=ether, snr_db=lambda a, b: 0.0)
    for i in range(4):
        for round_ in range(9):
            x, s, m = pasts[i][round_]
            held = sum(np.float32(UNEVEN[i, j]) * pasts[j][round_][0] for j in neighbours_of(UNEVEN, i))
            assert np.array_equal(s, held) == (round_ in (3, 7))
            np.testing.assert_allclose(m, 1 - UNEVEN[i, i], rtol=1e-6)
            if round_ in (4, 8):  # what the sender says is what changed since the refresh, for everybody
                for said in values_said(ports[i], round_).values():
                    assert np.array_equal(said, x - pasts[i][round_ - 1][0])


@pytest.mark.parametrize("access", ["tdma", "parallel"])
def test_a_refresh_takes_its_time_and_power(access):
    """Every number costs 32 bits of BPSK, once for all neighbours, over as many slots as that takes."""
    radio = radio_of(payload="differences", refresh_rounds=1, access=access)
    experiment = experiment_of(radio, devices=4)

    def program(device):
        past = device.live(range(1))
        return past.air_s[0], past.heard[0]

    found = play(experiment, path(4), program)
    airtime_s = (8 * HEADER_BYTES + 32 * NUM_VALUES) / BANDWIDTH_HZ
    turn_s = SYMBOLS_S + 3 * norms_s()
    ends_s = []
    for slot in (0, 1, 2, 0):
        left_s, slot_s = airtime_s, slot * turn_s
        while left_s > turn_s:
            left_s, slot_s = left_s - turn_s, slot_s + 3 * turn_s
        ends_s.append(slot_s + left_s if access == "tdma" else airtime_s)
    for device, (clock_s, heard) in found.items():
        others = neighbours_of(path(4), device)
        assert clock_s == pytest.approx(max(ends_s[other] for other in [device, *others]), rel=1e-12)
        for of_it in heard.values():
            assert of_it.tx_j == pytest.approx(POWER_W * airtime_s / len(others), rel=1e-12)
            assert of_it.rx_air_s == pytest.approx(airtime_s, rel=1e-12)
            assert of_it.packets_lost == 0


@PARTS
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("payload", ["models", "differences"])
def test_a_diverged_neighbour_is_missing_mass(superposition, bad, payload):
    """The energy of what it sends is no number that fits; it must not take the others along."""
    radio = radio_of(superposition=superposition, payload=payload, refresh_rounds=0, coherence_packets=2)
    experiment = experiment_of(radio)
    central = Central(experiment, UNEVEN)
    xs = [learned(device, 0) for device in range(4)]
    xs[1][40] = bad
    block = 1  # of 32 numbers

    def program(device):
        _, after = mix(device, 0, x=xs[device.number])
        return after, device.exchanges.radio.heard()

    for i, (after, heard) in play(experiment, UNEVEN, program).items():
        if i == 1:
            continue
        expected = xs[i].astype(np.float64)
        for j in neighbours_of(UNEVEN, i):
            silent = np.repeat(np.arange(central.num_blocks) == block, central.sizes) & (j == 1)
            copy = np.where(silent, 0 if payload == "differences" else xs[i], xs[j].astype(np.float64))
            expected += UNEVEN[i, j] * (copy - xs[i])
            assert heard[j].packets_lost == (2 if j == 1 else 0)
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_a_diverged_neighbour_is_missing_from_a_refresh():
    radio = radio_of(payload="differences", refresh_rounds=1)
    experiment = experiment_of(radio, devices=3)
    xs = [learned(device, 0) for device in range(3)]
    xs[1][40] = np.inf

    def program(device):
        _, after = mix(device, 0, x=xs[device.number])
        return after, device.exchanges.radio.heard()

    x, heard = play(experiment, complete(3), program)[0]
    np.testing.assert_allclose(x, xs[0] + (xs[2] - xs[0]) / 3, atol=1e-5)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    assert {device: of_it.packets_lost for device, of_it in heard.items()} == {1: num_packets, 2: 0}


def test_changes_of_a_copy_that_was_never_received_are_not_mixed():
    """A refresh got lost on the wire: its receiver holds no copy until the next one."""
    radio = radio_of(payload="differences", refresh_rounds=2)
    experiment, ether = experiment_of(radio, devices=3), Ether(3)

    def lets_through(device, header):
        return not (device == 0 and header.round == 1 and header.kind is Kind.PARAMETERS)

    ports = [Port(ether, 0), Faulty(ether, 1, lets_through), Port(ether, 2)]
    pasts = play(experiment, complete(3), lambda device: device.live(range(4)), ports=ports, ether=ether)
    assert [heard[1].missing for heard in pasts[0].heard] == ["", "wall", "", ""]
    x = [past.x for past in pasts.values()]
    before = x[0][1] + learned(0, 2)
    other = x[2][1] + learned(2, 2)
    np.testing.assert_allclose(x[0][2], before + (other - before) / 3, atol=1e-5)
    refreshed = [x[device][2] + learned(device, 3) for device in range(3)]
    np.testing.assert_allclose(x[0][3], np.mean(refreshed, axis=0), atol=1e-5)


def test_refreshed_differences_go_on_falling_where_all_else_stalls():
    """Section 5.3 of the theory: a ring of ten at 10 dB, and nothing to learn."""
    courses = {name: run(name, 100) for name in CASES}
    models, damped, unrefreshed, every_20, every_5 = courses.values()
    assert 0.8 < models.error[0] < 1.0  # ten normal numbers about their mean: 0.9
    assert len({course.error[0] for course in courses.values()}) == 1
    assert models.error[50] < 1.2 * models.error[100]  # it stalls
    assert damped.error[100] < models.error[100] / 3
    assert unrefreshed.error[100] > max(0.1, 50 * models.error[100])
    assert unrefreshed.drift[100] > 100 * models.drift[100]
    for course, refresh_rounds in ((every_20, 20), (every_5, 5)):
        assert course.error[100] < 1e-6 * course.error[0]
        assert course.error[100] < 1e-3 * course.error[60]
        assert course.drift[100] == pytest.approx(course.drift[refresh_rounds], rel=0.05)  # then it stands
    assert every_5.error[100] < 1e-3 * every_20.error[100]
    assert every_5.drift[100] < every_20.drift[100] / 10
    assert models.drift[100] > 1.5 * models.drift[50]
    assert every_5.air_s > every_20.air_s > models.air_s == unrefreshed.air_s  # what that costs
