"""Estimates from pilot rounds: unbiased on quadratics whose constants are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from protocol.theory.constants import Constants
from protocol.theory.pilots import PilotRound, Pilots, variance_of_two

NUM_DEVICES, DIM, NUM_PILOTS = 5, 4, 4000
RNG = np.random.default_rng(7)
SPECTRA = np.concatenate((np.full((NUM_DEVICES, 1), 3.0), RNG.uniform(0, 3, (NUM_DEVICES, DIM - 1))), axis=1)
CENTRES = RNG.standard_normal((NUM_DEVICES, DIM))
VARIANCES = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
BATCHES = (2, 2, 4, 4, 8)
MODEL = RNG.standard_normal(DIM)
GRADIENTS = SPECTRA * (MODEL - CENTRES)
MEAN_GRADIENT = GRADIENTS.mean(axis=0)
HETEROGENEITY = ((GRADIENTS - MEAN_GRADIENT) ** 2).sum(axis=1).mean()


def noisy(rng):
    """Gradients of one minibatch on each device."""
    return GRADIENTS + rng.standard_normal(GRADIENTS.shape) * np.sqrt(VARIANCES / DIM)[:, None]


def pilot(rng):
    """Run one pilot round: b_i minibatches on each device, the first two of which tell the variance."""
    batches = [noisy(rng) for _ in range(max(BATCHES))]
    own = np.array([np.mean([batch[i] for batch in batches[:b]], axis=0) for i, b in enumerate(BATCHES)])
    apart = ((batches[0] - batches[1]) ** 2).sum(axis=1)
    move = rng.standard_normal(DIM)
    return PilotRound(
        losses=(SPECTRA * (MODEL - CENTRES) ** 2 / 2).sum(axis=1).tolist(),
        gradient_norms_sq=(own**2).sum(axis=1).tolist(),
        gradient_variances=[variance_of_two(difference) for difference in apart.tolist()],
        num_batches=BATCHES,
        mean_gradient_norm_sq=float((own.mean(axis=0) ** 2).sum()),
        secants=(np.linalg.norm(SPECTRA * move, axis=1) / np.linalg.norm(move)).tolist(),
    )


def test_estimates_are_unbiased():
    """Single pilots, before anything is cut at 0: within 99 % intervals over all three."""
    rng = np.random.default_rng(1)
    singles = [Pilots().add(pilot(rng)) for _ in range(NUM_PILOTS)]
    for name, expected in (
        ("sum_gradient_variance", VARIANCES.mean()),
        ("sum_mean_gradient_sq", (MEAN_GRADIENT**2).sum()),
        ("sum_heterogeneity", HETEROGENEITY),
    ):
        values = np.array([getattr(one, name) for one in singles])
        width = norm.isf(0.005 / 3) * values.std() / np.sqrt(NUM_PILOTS)
        assert abs(values.mean() - expected) < width
        assert width < 0.02 * expected


def test_pilots_accumulate_to_the_constants_of_the_task():
    """The largest of 3000 secants is below L, and near it; losses have no noise here."""
    rng, pilots = np.random.default_rng(2), Pilots()
    for _ in range(600):
        pilots = pilots.add(pilot(rng))
    found = pilots.constants(least_loss=0.5)
    assert found.gradient_variance == pytest.approx(VARIANCES.mean(), rel=0.1)
    assert found.heterogeneity == pytest.approx(HETEROGENEITY, rel=0.1)
    assert 2.8 < found.smoothness <= 3 * (1 + 1e-12)
    loss = (SPECTRA * (MODEL - CENTRES) ** 2 / 2).sum(axis=1).mean()
    assert found.initial_gap == pytest.approx(loss - 0.5)
    assert pilots.mean_gradient_norm_sq == pytest.approx((MEAN_GRADIENT**2).sum(), rel=0.1)


FIRST = PilotRound(
    losses=(2.0, 4.0),
    gradient_norms_sq=(10.0, 6.0),
    gradient_variances=(4.0, 8.0),
    num_batches=(2, 4),
    mean_gradient_norm_sq=5.0,
    secants=(1.5,),
)


def test_one_round_by_hand():
    """Noise 2 and 2: ||grad F||^2 = 5 - 4 / 4, zeta^2 = (16 - 4) / 2 - 4."""
    pilots = Pilots().add(FIRST)
    assert pilots.mean_gradient_norm_sq == 4
    assert pilots.constants() == Constants(
        smoothness=1.5, gradient_variance=6.0, heterogeneity=2.0, initial_gap=3.0
    )


def test_small_constants_are_not_cut():
    one = Pilots().add(
        PilotRound(
            losses=(0.5,),
            gradient_norms_sq=(0.5,),
            gradient_variances=(0.25,),
            num_batches=(1,),
            mean_gradient_norm_sq=0.5,
            secants=(0.125,),
        )
    )
    assert one.constants() == Constants(
        smoothness=0.125, gradient_variance=0.25, heterogeneity=0.0, initial_gap=0.5
    )
    assert one.mean_gradient_norm_sq == 0.25


def test_later_rounds_are_averaged_but_for_the_first_loss_and_the_largest_secant():
    second = replace(FIRST, losses=(1.0, 1.0), gradient_variances=(0.0, 0.0), secants=(1.0, 1.2))
    found = Pilots().add(FIRST).add(second).constants(least_loss=1.0)
    # Without noise ||grad F||^2 = 5 and zeta^2 = 8 - 5.
    assert found == Constants(smoothness=1.5, gradient_variance=3.0, heterogeneity=2.5, initial_gap=2.0)
    assert Pilots().add(second).add(FIRST).largest_secant == 1.5


def test_single_estimates_may_be_negative_but_no_constant_is():
    noisy_round = replace(FIRST, gradient_variances=(40.0, 80.0), mean_gradient_norm_sq=1.0)
    one = Pilots().add(noisy_round)
    assert one.sum_heterogeneity < 0
    assert one.sum_mean_gradient_sq < 0
    assert one.mean_gradient_norm_sq == 0
    assert one.constants(least_loss=9.0) == Constants(
        smoothness=1.5, gradient_variance=60.0, heterogeneity=0.0, initial_gap=0.0
    )


def test_constants_need_a_round_and_a_movement():
    with pytest.raises(AssertionError, match="pilot rounds"):
        Pilots().constants()
    with pytest.raises(AssertionError, match="movement"):
        Pilots().add(replace(FIRST, secants=())).constants()
