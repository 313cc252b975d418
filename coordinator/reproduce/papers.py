"""The two papers: what is known of them, what was derived here, and which comparisons a page holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.reproduce.adaptive import adaptive_against_fixed, adaptive_over_schemes
from coordinator.reproduce.analog import analog_over_snr
from coordinator.reproduce.bounds import gradients_against_bounds
from coordinator.reproduce.comparison import EXPERIMENTS, Comparison
from coordinator.reproduce.contraction import measured_contraction
from coordinator.reproduce.energy import aggregation_energy
from coordinator.reproduce.knee import knee
from coordinator.reproduce.split import local_rounds_at_equal_joules
from coordinator.reproduce.success import SUCCESSES, accuracy_over_success
from protocol.errors import BadInput
from protocol.experiment_file import nearest

SEEDS = (1, 2, 3, 4, 5)
TEN = tuple(range(1, 11))
"""Where five leave an interval as wide as the effect."""
FEW_SUCCESSES = (1.0, 0.9, 0.7, 0.5, 0.1)
DROPS = tuple(range(1, 41))
REGRESSION = ("model.kind=mlp", "model.hidden=[]", "codec.packet_bytes=56")
"""In packets that it fills, so that all of them are lost alike."""
FIXED = (1, 2, 5, 10, 20)
UNLIKE_DATA = ("name=p1-digits-unlike", "data.dirichlet_alpha=0.1", "rounds=15")
"""Most devices have two or three labels. 15 is the best of 8, 10, 15, 20 rounds with seeds 11 to 13 here."""
SCHEMES = {
    "tree": ("aggregation.scheme=tree",),
    "ring": ("aggregation.scheme=ring",),
    "all broadcast": ("aggregation.scheme=gossip", "radio.cast=broadcast"),
    "full mesh": ("aggregation.scheme=gossip", "radio.cast=unicast"),
}


@dataclass(frozen=True)
class Paper:
    """One paper, and what is compared of it."""

    title: str
    source: str
    facts: tuple[str, ...]
    """What the paper does, as its abstract and public summaries say."""
    derived: str
    """What on the page is this project's."""
    quick: Callable[[], tuple[Comparison, ...]]
    full: Callable[[], tuple[Comparison, ...]]


def find_paper(name: str) -> Paper:
    """Return a paper by its short name; raises BadInput."""
    if name not in PAPERS:
        raise BadInput(f"reproduce {name}: no such paper; {nearest(name, PAPERS)}")
    if not EXPERIMENTS.is_dir():
        raise BadInput(
            f"reproduce {name}: its experiments are files of the source tree ({EXPERIMENTS}), and this "
            f"hearsay was installed without it; install it from a checkout, with pip install -e"
        )
    return PAPERS[name]


def _p1_quick() -> tuple[Comparison, ...]:
    digits = _file("p1-digits")
    return (
        adaptive_against_fixed(digits, local_rounds=FIXED, seeds=TEN),
        adaptive_against_fixed(digits, UNLIKE_DATA, local_rounds=FIXED, seeds=SEEDS),
        aggregation_energy(_file("p1-energy"), seeds=DROPS),
        adaptive_over_schemes(digits, SCHEMES, seeds=SEEDS),
    )


def _p1_full() -> tuple[Comparison, ...]:
    cnn, vit = _file("p1-fashion-mnist"), _file("p1-cifar10")
    sizes = [
        aggregation_energy(_file("p1-energy"), (f"devices={n}",), seeds=DROPS, name=f"energy-{n}")
        for n in (10, 20, 30)
    ]
    return (
        adaptive_against_fixed(cnn, local_rounds=FIXED, seeds=SEEDS),
        adaptive_against_fixed(vit, local_rounds=FIXED, seeds=SEEDS[:3]),
        *sizes,
        adaptive_over_schemes(cnn, SCHEMES, seeds=SEEDS),
    )


def _p2_theory(
    successes: Sequence[float], bounded: Sequence[float], snrs_db: Sequence[float]
) -> tuple[Comparison, ...]:
    """Return what is held against theory, on a task whose L is known."""
    softmax = _file("p2-digits-softmax")
    return (
        measured_contraction(softmax, successes=SUCCESSES, seeds=tuple(range(1, 9))),
        accuracy_over_success(softmax, successes=successes, seeds=SEEDS),
        gradients_against_bounds(softmax, successes=bounded, snrs_db=snrs_db, seeds=SEEDS),
    )


def _p2_quick() -> tuple[Comparison, ...]:
    digits = _file("p2-digits")
    return (
        *_p2_theory(FEW_SUCCESSES, (1.0, 0.5), (0, 20)),
        knee(digits, (("CNN", ()),), successes=FEW_SUCCESSES, seeds=SEEDS),
        analog_over_snr(digits, (*REGRESSION, "rounds=40"), snrs_db=(0, 10, 20), seeds=SEEDS),
        local_rounds_at_equal_joules(
            _file("p2-digits-joules"), local_rounds=(1, 5, 20, 60, 200), practical_rate=0.5, seeds=SEEDS
        ),
    )


def _p2_full() -> tuple[Comparison, ...]:
    cnn, vit = _file("p2-fashion-mnist"), _file("p2-cifar10")
    return (
        *_p2_theory(SUCCESSES, (1.0, 0.7, 0.5), (0, 10, 20)),
        knee(cnn, (("CNN", ()),), successes=SUCCESSES, seeds=SEEDS),
        knee(vit, (("ViT", ()),), successes=SUCCESSES, seeds=SEEDS[:3]),
        analog_over_snr(cnn, (), snrs_db=(5, 10, 15, 20, 25, 30), seeds=SEEDS),
        analog_over_snr(vit, (), snrs_db=(5, 10, 20, 30), seeds=SEEDS[:3]),
        local_rounds_at_equal_joules(
            _file("p2-digits-joules"),
            local_rounds=(1, 2, 5, 10, 20, 60, 200),
            practical_rate=0.5,
            seeds=SEEDS,
        ),
    )


def _file(name: str) -> Path:
    return EXPERIMENTS / f"{name}.toml"


PAPERS = {
    "p1": Paper(
        title="Adaptive Decentralized Federated Learning in Energy and Latency Constrained Wireless Networks",
        source="Zhigang Yan and Dong Li, arXiv 2403.20075",
        facts=(
            "Unlike devices in a graph without a server minimise a common loss under energy and latency "
            "budgets of their own.",
            "The number of local training rounds is decided for each device and iteration, from a bound on "
            "convergence with different numbers of them.",
            "Energy for aggregation is saved by a minimum spanning tree where channels are known, and by "
            "Ring-AllReduce otherwise; what is saved buys local rounds.",
            "Compared with fixed numbers of local rounds, in accuracy, and with traditional and gossip "
            "aggregation, in energy.",
        ),
        derived="Cost model, bound, rules for local rounds, the tree that multicasts, normalised updates and "
        "every setting on this page were derived or chosen for this project (docs/theory.md, "
        "docs/aggregation.md); they are not the authors' theorems or settings. No number on this page is "
        "from the paper, and none is compared with one of it: the limits of the claims are this project's.",
        quick=_p1_quick,
        full=_p1_full,
    ),
    "p2": Paper(
        title="Performance Analysis for Resource Constrained Decentralized Federated Learning Over Wireless "
        "Networks",
        source="Zhigang Yan and Dong Li, arXiv 2308.06496",
        facts=(
            "Devices exchange parameters over a wireless network without a server, digitally or analog.",
            "Bounds on the convergence of both; for digital exchanges also how to divide resources between "
            "computing and communicating, the communication complexity, and the least probability of correct "
            "communication with which convergence is guaranteed.",
            "For analog ones the effect of fading and noise, and how much error may accumulate.",
            "Experiments with CNNs and a vision transformer on Fashion-MNIST and CIFAR-10.",
        ),
        derived="Model, bounds, p_min, tau* and every setting on this page were derived or chosen for this "
        "project (docs/theory.md); they are not the authors' theorems or settings. No number on this page is "
        "from the paper, and none is compared with one of it.",
        quick=_p2_quick,
        full=_p2_full,
    ),
}
