"""Mixing: x += s - m * xhat, packet by packet, against numpy; and what it must never move."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.mixing import Arrived, mixing_step
from protocol.codec import Layout, Selection, decode, encode
from protocol.config import Aggregation

fixed = settings(derandomize=True, deadline=None)


@st.composite
def arrivals(draw):
    """Draw a layout, parameters x, own decoded payload xhat, and what came of each neighbour."""
    layout = Layout("float32", draw(st.integers(1, 60)), draw(st.integers(16, 64)), checked=True)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, xhat = rng.standard_normal((2, layout.num_values), dtype=np.float32)
    masks = st.one_of(
        st.just([True] * layout.num_packets),
        st.lists(st.booleans(), min_size=layout.num_packets, max_size=layout.num_packets),
    )
    neighbours = [
        (rng.standard_normal(layout.num_values, dtype=np.float32), draw(st.floats(0, 0.5)), np.array(mask))
        for mask in draw(st.lists(masks, max_size=4))
    ]
    return layout, x, xhat, neighbours


def per_value(mask, layout):
    """Spread one entry per packet over the numbers it carries, a packet at a time."""
    spread = np.empty(layout.num_values, dtype=np.asarray(mask).dtype)
    for packet, entry in enumerate(mask):
        spread[layout.values(packet)] = entry
    return spread


@fixed
@given(arrivals(), st.booleans())
def test_equals_the_formula_in_numpy(arrival, own_is_exact):
    layout, x, xhat, neighbours = arrival
    reference = x if own_is_exact else xhat
    expected = x.astype(np.float64)
    for xj, weight, intact in neighbours:
        expected += weight * per_value(intact, layout) * (xj.astype(np.float64) - reference)
    arrived, mixed = Arrived(layout), torch.from_numpy(x.copy())
    for xj, weight, intact in neighbours:
        arrived.add_(xj, weight, intact)
    arrived.mix_(mixed, None if own_is_exact else torch.from_numpy(xhat))
    np.testing.assert_allclose(mixed.numpy(), expected, rtol=0, atol=3e-6)


@fixed
@given(arrivals(), st.floats(1e-3, 1), st.booleans())
def test_a_step_damps_what_the_neighbours_pull(arrival, step, own_is_exact):
    """By g (s - m xhat) in all; g = 1 is plain mixing, bit for bit."""
    layout, x, xhat, neighbours = arrival
    reference = x if own_is_exact else xhat
    pull = np.zeros(layout.num_values)
    for xj, weight, intact in neighbours:
        pull += weight * per_value(intact, layout) * (xj.astype(np.float64) - reference)
    mixed = {}
    for name, steps in (("damped", (step,)), ("one", (1.0,)), ("plain", ())):
        arrived, mixed[name] = Arrived(layout), torch.from_numpy(x.copy())
        for xj, weight, intact in neighbours:
            arrived.add_(xj, weight, intact)
        arrived.mix_(mixed[name], None if own_is_exact else torch.from_numpy(xhat), *steps)
    np.testing.assert_allclose(mixed["damped"].numpy(), x + step * pull, rtol=0, atol=3e-6)
    assert torch.equal(mixed["one"], mixed["plain"])


def test_the_step_falls_as_it_is_told():
    """g_k = step / (1 + k / K) ^ a."""
    constant = Aggregation(step=0.5)
    assert [mixing_step(constant, round_) for round_ in (0, 1, 10**9)] == [0.5] * 3
    falling = Aggregation(step=0.8, step_decay_rounds=10, step_exponent=0.75)
    assert mixing_step(falling, 0) == 0.8
    assert mixing_step(falling, 10) == pytest.approx(0.8 / 2**0.75)
    assert mixing_step(falling, 150) == pytest.approx(0.8 / 8)
    assert mixing_step(Aggregation(), 7) == 1
    assert mixing_step(Aggregation(step_decay_rounds=1, step_exponent=0), 7) == 1


@fixed
@given(arrivals(), st.integers(0, 2**32))
def test_packets_that_were_sent_again_count_as_if_they_had_come_at_once(arrival, seed):
    """However the packets of a neighbour are spread over attempts: bit for bit, since each is added once."""
    layout, x, xhat, neighbours = arrival
    rng = np.random.default_rng(seed)
    whole, spread = Arrived(layout), Arrived(layout)
    for xj, weight, intact in neighbours:
        if intact.any():
            whole.add_(xj, weight, intact)
        attempt = rng.integers(0, 4, layout.num_packets)  # in which each packet arrived
        first = intact & (attempt == 0)
        if first.any():
            spread.add_(xj, weight, first)
        for later in range(1, 4):
            sent = np.flatnonzero(attempt >= later)  # those that had not arrived
            if not len(sent):
                break
            numbers = np.concatenate([xj[layout.values(packet)] for packet in sent.tolist()])
            counted = intact[sent] & (attempt[sent] == later)
            numbers[per_value(~counted, layout.of(sent)).astype(bool)] = (
                np.nan
            )  # what is not counted is not read
            selection = Selection(sent, layout.of(sent), np.empty(0, dtype=np.uint8))
            spread.add_selection_(numbers, weight, selection, counted)
    assert np.array_equal(whole.m, spread.m)
    if any(intact.any() for _, _, intact in neighbours):
        assert torch.equal(whole.s, spread.s)
    mixed = [torch.from_numpy(x.copy()) for _ in range(2)]
    for arrived, moved in zip((whole, spread), mixed, strict=True):
        arrived.mix_(moved, torch.from_numpy(xhat))
    # Where nothing has arrived, one adds nothing and the other adds zeros.
    assert torch.equal(*mixed)


def test_a_signal_that_was_heard_as_a_sum_is_mixed_like_any_other():
    """An analog receiver writes (s, m) itself; what was there before is forgotten."""
    layout = Layout("float32", 20, 32, checked=True)
    rng = np.random.default_rng(1)
    x, before, heard = rng.standard_normal((3, 20), dtype=np.float32)
    arrived, mixed = Arrived(layout), torch.from_numpy(x.copy())
    arrived.add_(before, 0.3, np.ones(layout.num_packets, dtype=bool))
    arrived.clear_()
    s, m = arrived.deliver()
    assert not s.any()
    assert not m.any()
    s += heard
    m[1:] = [0.25, 0.5]
    arrived.mix_(mixed, None)
    mass = per_value(np.array([0, 0.25, 0.5], dtype=np.float32), layout)
    np.testing.assert_allclose(mixed.numpy(), x + heard - mass * x, rtol=0, atol=1e-6)


@fixed
@given(arrivals())
def test_hands_on_the_sum_and_the_mass_that_arrived(arrival):
    layout, _, _, neighbours = arrival
    arrived = Arrived(layout)
    for xj, weight, intact in neighbours:
        arrived.add_(xj, weight, intact)
    mass = sum((weight * intact for _, weight, intact in neighbours), np.zeros(layout.num_packets))
    np.testing.assert_allclose(arrived.m, mass, atol=1e-6)
    if neighbours:  # of nothing, there is no sum to look at
        total = sum(weight * per_value(intact, layout) * xj for xj, weight, intact in neighbours)
        np.testing.assert_allclose(arrived.s.numpy(), total, atol=3e-6)


@fixed
@given(arrivals())
def test_equal_vectors_stay_where_they_are_whatever_was_lost(arrival):
    """Rows of the effective mixing matrix sum to 1."""
    layout, x, _, neighbours = arrival
    arrived, mixed = Arrived(layout), torch.from_numpy(x.copy())
    for _, weight, intact in neighbours:
        arrived.add_(x, weight, intact)
    arrived.mix_(mixed, None)
    np.testing.assert_allclose(mixed.numpy(), x, rtol=2e-6, atol=2e-6)


def test_what_arrives_is_not_written():
    """Received memory may belong to the sender, or to another neighbour."""
    layout = Layout("float32", 30, 32, checked=True)
    xj = np.arange(30, dtype=np.float32)
    arrived, x, xhat = Arrived(layout), torch.zeros(30), torch.ones(30)
    for intact in (np.ones(layout.num_packets, dtype=bool), np.arange(layout.num_packets) % 2 == 0):
        arrived.add_(xj, 0.25, intact)
    arrived.mix_(x, xhat)
    assert np.array_equal(xj, np.arange(30))
    assert bool((xhat == 1).all())


def test_a_lost_packet_is_not_even_read():
    """What fails its checksum may hold anything; 0 * NaN would still be NaN."""
    layout = Layout("float32", 30, 32, checked=True)
    xj, intact = np.ones(30, dtype=np.float32), np.ones(layout.num_packets, dtype=bool)
    xj[layout.values(1)] = np.nan
    intact[1] = False
    arrived, x = Arrived(layout), torch.zeros(30)
    arrived.add_(xj, 0.5, intact)
    arrived.mix_(x, None)
    expected = np.where(per_value(intact, layout), 0.5, 0.0)
    assert np.array_equal(x.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("intact", [[True, True, True], [False, True, False], [False, False, False]])
def test_clear_forgets_the_round_before(intact):
    layout = Layout("float32", 20, 32, checked=True)
    rng = np.random.default_rng(1)
    x, first, second = rng.standard_normal((3, 20), dtype=np.float32)
    reused, fresh = Arrived(layout), Arrived(layout)
    reused.add_(first, 0.3, np.array([True, False, True]))
    reused.mix_(torch.from_numpy(x.copy()), None)
    mixed = []
    for arrived in (reused, fresh):
        arrived.clear_()
        arrived.add_(second, 0.3, np.array(intact))
        mixed.append(torch.from_numpy(x.copy()))
        arrived.mix_(mixed[-1], None)
    assert torch.equal(*mixed)


def test_nothing_arrived_changes_not_one_bit():
    layout = Layout("float32", 20, 32, checked=True)
    arrived, x = Arrived(layout), torch.full((20,), 0.1)
    arrived.add_(np.ones(20, dtype=np.float32), 0.3, np.ones(3, dtype=bool))
    arrived.clear_()
    arrived.mix_(x, None)
    arrived.mix_(x, torch.ones(20))
    assert bool((x == torch.full((20,), 0.1)).all())


WEIGHTS = np.array([[0.4, 0.3, 0.2, 0.1], [0.3, 0.3, 0.1, 0.3], [0.2, 0.1, 0.5, 0.2], [0.1, 0.3, 0.2, 0.4]])
"""Symmetric and doubly stochastic, with no two rows alike."""


def mix_all(xs, layout, intact, *, against_own_payload=True, step=1.0):
    """Let four devices exchange what they encode; intact[i][j] says which packets of j device i counts."""
    payloads = [np.zeros(layout.payload_bytes, dtype=np.uint8) for _ in xs]
    for device, x in enumerate(xs):
        encode(x, layout, payloads[device], np.random.default_rng(device))
    decoded = [decode(payload, layout).copy() for payload in payloads]
    mixed = np.empty_like(xs)
    for i, x in enumerate(xs):
        arrived, moved = Arrived(layout), torch.from_numpy(x.copy())
        for j in range(len(xs)):
            if j != i:
                arrived.add_(decoded[j], WEIGHTS[i, j], intact[i, j])
        arrived.mix_(moved, torch.from_numpy(decoded[i]) if against_own_payload else None, step)
        mixed[i] = moved.numpy()
    return mixed


def four_devices(kind):
    layout = Layout(kind, 500, 64, checked=True)
    rng = np.random.default_rng(3)
    xs = rng.standard_normal((4, layout.num_values), dtype=np.float32)
    intact = rng.random((4, 4, layout.num_packets)) < 0.6
    return layout, xs, intact, intact & intact.transpose(1, 0, 2)


def drift(xs, mixed):
    """Return the largest move of the mean over devices, of any number."""
    return np.abs(mixed.mean(axis=0, dtype=np.float64) - xs.mean(axis=0, dtype=np.float64)).max()


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_symmetric_losses_and_lossy_codecs_keep_the_mean(kind):
    layout, xs, one_sided, symmetric = four_devices(kind)
    assert 0.2 < symmetric.mean() < 0.5  # or the losses would prove nothing
    mixed = mix_all(xs, layout, symmetric)
    assert drift(xs, mixed) < 2e-7
    assert mixed.std(axis=0).mean() < 0.9 * xs.std(axis=0).mean()  # and it did mix
    assert drift(xs, mix_all(xs, layout, symmetric, step=0.3)) < 2e-7
    assert drift(xs, mix_all(xs, layout, one_sided)) > 0.1  # one-sided losses move it: see what symmetry buys


@pytest.mark.parametrize(("kind", "least"), [("float16", 1e-5), ("int8", 1e-3)])
def test_mixing_a_lossy_codec_against_x_itself_would_move_the_mean(kind, least):
    layout, xs, _, symmetric = four_devices(kind)
    assert drift(xs, mix_all(xs, layout, symmetric, against_own_payload=False)) > least
