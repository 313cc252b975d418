"""Selective-repeat ARQ: who is sent what again and when, and how often that is in the mean.

The laws of attempts are measured with both ends of real frames, whose bits are flipped by the air.
"""

import math

import numpy as np
import pytest
from constellations import linear
from scipy.stats import norm

from protocol.access import plan_access
from protocol.air import AirLink, Transmission, cross, frame_layout
from protocol.arq import Receiving, Sending
from protocol.codec import encode, select, selected
from protocol.config import Codec, Experiment
from protocol.fading import equally_likely_gains
from protocol.link import loss_after_attempts, mean_attempts, packet_loss_probability
from protocol.radio import Radio


def mask(*packets, num_packets=6):
    """Return the bitmap of a receiver that has these packets."""
    got = np.zeros(num_packets, dtype=np.bool_)
    got[list(packets)] = True
    return got


ALL = mask(0, 1, 2, 3, 4, 5)


def sending(*receivers, max_attempts=4, together=True):
    return Sending(receivers, max_attempts=max_attempts, together=together)


def answer(one, device, *packets, final=False, air_s=0.0):
    one.answer(device, mask(*packets), final=final, air_s=air_s)


def told(repeats):
    """Return attempt, packets, receivers and time of each repeat."""
    return [(r.attempt, r.packets.tolist(), r.receivers, r.ready_air_s) for r in repeats]


def test_a_broadcast_is_repeated_once_for_all_who_miss_something():
    """The union of what is missing, rising, when the last answer has come."""
    one = sending(1, 2, 3)
    answer(one, 2, 0, 1, 2, 3, air_s=5.0)
    answer(one, 1, 0, 2, 3, 5, air_s=3.0)
    assert one.repeats() == []
    answer(one, 3, *range(6), final=True, air_s=4.0)
    assert told(one.repeats()) == [(1, [1, 4, 5], (1, 2), 5.0)]
    assert one.repeats() == []


def test_a_repeat_waits_for_those_who_miss_nothing_too():
    """Until they have answered nobody knows; later repeats wait only for who was addressed again."""
    one = sending(1, 2)
    answer(one, 1, 0, air_s=3.0)
    answer(one, 2, *range(6), final=True, air_s=9.0)
    assert told(one.repeats()) == [(1, [1, 2, 3, 4, 5], (1,), 9.0)]
    answer(one, 1, 0, 1, 2, 3, 4, air_s=8.0)  # it was not addressed at 9.0, so this is what counts
    assert told(one.repeats()) == [(2, [5], (1,), 8.0)]


def test_a_broadcast_is_again_for_all_who_still_miss_something():
    one = sending(1, 2, 3)
    for device, packet in ((1, 0), (2, 1), (3, 2)):
        answer(one, device, *(set(range(6)) - {packet}), air_s=device)
    assert told(one.repeats()) == [(1, [0, 1, 2], (1, 2, 3), 3)]
    answer(one, 1, *(set(range(6)) - {0}), air_s=14.0)
    answer(one, 2, *range(6), final=True, air_s=12.0)
    answer(one, 3, *(set(range(6)) - {2}), air_s=13.0)
    assert told(one.repeats()) == [(2, [0, 2], (1, 3), 14.0)]


def test_unicast_gives_every_receiver_its_own_turn():
    """Nobody waits for anybody else, and nobody is sent what another one misses."""
    one = sending(1, 2, 3, together=False)
    answer(one, 2, 0, 1, 2, 3, air_s=5.0)
    assert told(one.repeats()) == [(1, [4, 5], (2,), 5.0)]
    answer(one, 2, 0, 1, 2, 3, 4, air_s=8.0)
    answer(one, 1, 1, 2, 3, 4, 5, air_s=3.0)
    assert told(one.repeats()) == [(1, [0], (1,), 3.0), (2, [5], (2,), 8.0)]
    answer(one, 3, *range(6), final=True, air_s=1.0)
    assert one.repeats() == []


@pytest.mark.parametrize("together", [True, False])
def test_a_packet_is_sent_max_attempts_times_at_most(together):
    for max_attempts in (1, 2, 4):
        one = sending(1, max_attempts=max_attempts, together=together)
        attempts = [0]
        for _ in range(6):
            if one.unanswered(1) is None:
                break
            answer(one, 1)
            attempts += [repeat.attempt for repeat in one.repeats()]
        assert attempts == list(range(max_attempts))
        assert not one.wants(1)


@pytest.mark.parametrize("together", [True, False])
def test_a_final_answer_ends_it_whatever_is_missing(together):
    one = sending(1, 2, together=together)
    answer(one, 1, 0, final=True, air_s=1.0)
    answer(one, 2, 0, 1, air_s=2.0)
    assert told(one.repeats()) == [(1, [2, 3, 4, 5], (2,), 2.0)]
    assert not one.wants(1)
    assert one.unanswered(1) is None
    assert one.got(1).tolist() == mask(0).tolist()


def test_what_is_awaited_and_wanted():
    one = sending(1, 2)
    assert (one.unanswered(1), one.unanswered(2), one.unanswered(3)) == (0, 0, None)
    assert (one.wants(1), one.wants(3)) == (True, False)
    assert one.got(1) is one.got(3) is None
    answer(one, 1, 0)
    assert one.unanswered(1) is None
    assert one.wants(1)
    assert one.got(1).tolist() == mask(0).tolist()
    answer(one, 2, *range(6), final=True)
    assert not one.wants(2)
    one.repeats()
    assert (one.unanswered(1), one.unanswered(2)) == (1, None)
    answer(one, 1, 0, 3)
    assert one.got(1).tolist() == mask(0, 3).tolist()


def test_who_is_given_up_holds_nobody_up_and_is_sent_nothing_more():
    one = sending(1, 2)
    answer(one, 1, 0, 1, 2, 3, air_s=7.0)
    assert one.repeats() == []
    one.give_up(2)
    assert told(one.repeats()) == [(1, [4, 5], (1,), 7.0)]
    assert (one.wants(2), one.got(2)) == (False, None)
    answer(one, 1, 0, 1, 2, 3, 4, air_s=9.0)
    one.give_up(1)
    assert one.repeats() == []
    assert one.got(1).tolist() == mask(0, 1, 2, 3, 4).tolist()


def test_nobody_is_sent_nothing():
    assert sending().repeats() == []
    assert sending(together=False).repeats() == []


def test_a_receiver_collects_what_is_new_and_intact():
    one = Receiving(6, max_attempts=4)
    assert one.attempt == -1
    fresh = one.take(0, slice(None), mask(0, 2, 5), on_time=True)
    assert fresh.tolist() == mask(0, 2, 5).tolist()
    assert not one.complete
    packets = np.array([1, 2, 3])
    fresh = one.take(1, packets, np.array([False, True, True]), on_time=True)
    assert fresh.tolist() == [False, False, True]  # 2 was there before
    assert one.intact.tolist() == mask(0, 2, 3, 5).tolist()
    assert one.attempt == 1
    fresh = one.take(2, np.array([1, 2, 4]), np.array([True, False, True]), on_time=True)
    assert fresh.tolist() == [True, False, True]
    assert one.intact.all()  # what was there stays, though it came again and broken
    assert one.complete


def test_a_receiver_is_done_after_max_attempts():
    one = Receiving(6, max_attempts=2)
    one.take(0, slice(None), mask(0), on_time=True)
    assert not one.complete
    one.take(1, np.arange(1, 6), np.zeros(5, dtype=np.bool_), on_time=True)
    assert one.complete
    assert one.intact.tolist() == mask(0).tolist()


def test_one_attempt_is_all_without_arq():
    one = Receiving(6, max_attempts=1)
    one.take(0, slice(None), mask(), on_time=True)
    assert one.complete


def test_what_comes_late_counts_for_nothing_and_ends_it():
    one = Receiving(6, max_attempts=4)
    one.take(0, slice(None), mask(0, 1), on_time=True)
    fresh = one.take(1, np.array([2, 3]), np.array([True, True]), on_time=False)
    assert fresh.tolist() == [False, False]
    assert one.intact.tolist() == mask(0, 1).tolist()
    assert one.complete


def test_who_was_late_once_is_done_with_this_frame():
    one = Receiving(6, max_attempts=4)
    one.take(0, slice(None), ALL, on_time=False)
    assert not one.intact.any()
    one.take(1, np.array([2]), np.array([True]), on_time=True)
    assert one.complete


class Link:
    """Frames of one device to some neighbours over the real air, with both ends of the ARQ."""

    def __init__(self, radio, num_values, receivers=(1,), seed=1):
        self.experiment = Experiment(radio=radio, codec=Codec(packet_bytes=64), seed=seed)
        self.layout = frame_layout(self.experiment, num_values)
        access = plan_access(self.experiment, self.layout, num_colours=2, max_degree=len(receivers))
        place = (0.0, 0.0)
        self.links = {
            receiver: AirLink(
                self.experiment,
                access,
                pair=(0, receiver),
                mean_snrs_db=(radio.snr_db, radio.snr_db),
                places_m=(place, place),
            )
            for receiver in receivers
        }
        self.payload = np.zeros(self.layout.payload_bytes, dtype=np.uint8)
        values = np.random.default_rng(1).standard_normal(num_values, dtype=np.float32)
        encode(values, self.layout, self.payload, None)

    def exchange(self, round_):
        """Send one frame until nothing more is wanted.

        Returns how often each packet was sent, shape (num_packets,), and whether it had arrived after
        each attempt, shape (receivers, max_attempts, num_packets).
        """
        radio = self.experiment.radio
        sender = Sending(self.links, max_attempts=radio.attempts, together=radio.cast == "broadcast")
        hearing = {
            device: Receiving(self.layout.num_packets, max_attempts=radio.attempts) for device in self.links
        }
        times_sent = np.ones(self.layout.num_packets)
        arrived = np.zeros((len(self.links), radio.attempts, self.layout.num_packets), dtype=np.bool_)
        waves = [(0, np.arange(self.layout.num_packets), tuple(self.links))]
        while waves:
            for attempt, packets, receivers in waves:
                sent = Transmission(round_, 0, 0, 0, attempt, radio.modulation)
                repeat = selected(select(self.payload, self.layout, packets), self.layout)
                for device in receivers:
                    reception = cross(
                        repeat.payload,
                        repeat.layout,
                        radio,
                        self.links[device].snr(sent, repeat.layout),
                        sent,
                        seed=self.experiment.seed,
                        receiver=device,
                    )
                    there = hearing[device]
                    there.take(attempt, packets, reception.intact, on_time=True)
                    arrived[list(self.links).index(device), attempt:] = there.intact
                    sender.answer(device, there.intact.copy(), final=there.complete, air_s=0.0)
            repeats = sender.repeats()
            for repeated in repeats:
                times_sent[repeated.packets] += 1
            waves = [(r.attempt, r.packets, r.receivers) for r in repeats]
        return times_sent, arrived


MAX_ATTEMPTS = 4
LAW_SNRS_DB = {"rayleigh": 14.0, "rician": 11.5, "nakagami": 13.0, "none": 9.5}
"""Mean Es/N0 at which QPSK loses about a quarter to a half of the 512-bit packets."""


def arq_radio(fading, **radio):
    settled = {"snr": "given", "snr_db": LAW_SNRS_DB[fading], "arq": "selective_repeat"}
    return Radio(fading=fading, max_attempts=MAX_ATTEMPTS, **(settled | radio))


def losses(radio, snr_db):
    """Packet loss at each of the equally likely fades."""
    snr = linear(snr_db) * equally_likely_gains(radio.fade)
    return packet_loss_probability(radio, radio.modulation, snr, 512)


NUM_CELLS = len(LAW_SNRS_DB) * 2 * (MAX_ATTEMPTS + 1)


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh fade", "same fade"])
@pytest.mark.parametrize("fading", LAW_SNRS_DB)
def test_laws_of_attempts(fading, fresh):
    """Times sent, and share still bad after 1 to 4 attempts, within 99 % for all cells together.

    Fresh: a fade lasts for one packet, so that every packet of every attempt has its own. Same: one fade
    lasts for the round, and its packets share their fate; so rounds are the samples, 300 of 50 packets,
    or 1200 of 10: their mean is nearly normal.
    """
    radio = arq_radio(fading, coherence_packets=1 if fresh else 0)
    link = Link(radio, 15 * (50 if fresh else 10))
    loss = losses(radio, radio.snr_db)
    assert 0.15 < loss.mean() < 0.6
    rounds = [link.exchange(round_) for round_ in range(300 if fresh else 1200)]
    sent = np.array([times_sent.mean() for times_sent, _ in rounds])
    bad = 1 - np.array([arrived[0].mean(axis=1) for _, arrived in rounds])
    width = norm.isf(0.01 / 2 / NUM_CELLS) / math.sqrt(len(rounds))
    expected = mean_attempts(loss, MAX_ATTEMPTS, fresh=fresh)
    assert abs(sent.mean() - expected) < width * sent.std()
    for n in range(1, MAX_ATTEMPTS + 1):
        still_bad = loss_after_attempts(loss, n, fresh=fresh)
        assert abs(bad[:, n - 1].mean() - still_bad) < width * bad[:, n - 1].std()


def test_the_two_laws_can_be_told_apart_where_they_are_measured():
    """Else the test above could not fail for the wrong one; what does not fade has but one law."""
    for fading in ("rayleigh", "rician", "nakagami"):
        radio = arq_radio(fading)
        loss = losses(radio, radio.snr_db)
        fresh, same = (loss_after_attempts(loss, MAX_ATTEMPTS, fresh=fresh) for fresh in (True, False))
        assert same > 3 * fresh
    still = losses(arq_radio("none"), LAW_SNRS_DB["none"])
    assert loss_after_attempts(still, 3, fresh=True) == pytest.approx(
        loss_after_attempts(still, 3, fresh=False)
    )


def test_a_broadcast_is_sent_until_the_last_of_its_receivers_has_it():
    """Links are independent: a packet is sent a further time with 1 - (1 - p^n)^3 after n attempts."""
    radio = arq_radio("rayleigh", coherence_packets=1)
    link = Link(radio, 15 * 50, receivers=(1, 2, 3))
    p = losses(radio, radio.snr_db).mean()
    expected = sum(1 - (1 - p**n) ** 3 for n in range(MAX_ATTEMPTS))
    sent = np.array([link.exchange(round_)[0].mean() for round_ in range(60)])
    assert abs(sent.mean() - expected) < norm.isf(0.005) * sent.std() / math.sqrt(len(sent))


def test_each_link_of_unicast_has_the_law_of_one_link():
    """Every receiver's packets are sent for it alone: three times the attempts of one."""
    radio = arq_radio("rayleigh", coherence_packets=1, cast="unicast")
    link = Link(radio, 15 * 50, receivers=(1, 2, 3))
    expected = mean_attempts(losses(radio, radio.snr_db), MAX_ATTEMPTS, fresh=True)
    # The first attempt is counted once for all three, every further one for its own receiver.
    sent = np.array([link.exchange(round_)[0].mean() + 2 for round_ in range(60)]) / 3
    assert abs(sent.mean() - expected) < norm.isf(0.005) * sent.std() / math.sqrt(len(sent))
