"""The two papers: what is known of them, what was derived here, and which comparisons a page holds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.reproduce.analog import analog_over_snr
from coordinator.reproduce.comparison import EXPERIMENTS, Comparison
from coordinator.reproduce.contraction import measured_contraction
from coordinator.reproduce.split import local_rounds_at_equal_joules
from coordinator.reproduce.success import SUCCESSES, accuracy_over_success, knee
from protocol.errors import BadInput
from protocol.experiment_file import nearest

SEEDS = (1, 2, 3, 4, 5)
REGRESSION = ("model.kind=mlp", "model.hidden=[]")


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


def _p2_quick() -> tuple[Comparison, ...]:
    softmax, digits = _file("p2-digits-softmax"), _file("p2-digits")
    return (
        measured_contraction(softmax, successes=SUCCESSES, seeds=SEEDS),
        accuracy_over_success(softmax, successes=SUCCESSES, seeds=SEEDS[:3]),
        knee(digits, (("softmax regression", REGRESSION), ("CNN", ())), successes=SUCCESSES, seeds=SEEDS[:3]),
        analog_over_snr(digits, REGRESSION, snrs_db=(0, 10, 20, 30), seeds=SEEDS[:3]),
        local_rounds_at_equal_joules(
            _file("p2-digits-joules"), local_rounds=(1, 2, 6, 20, 50), practical_rate=0.5, seeds=SEEDS[:3]
        ),
    )


def _p2_full() -> tuple[Comparison, ...]:
    cnn, vit = _file("p2-fashion-mnist"), _file("p2-cifar10")
    return (
        *_p2_quick()[:2],
        knee(cnn, (("CNN", ()),), successes=SUCCESSES, seeds=SEEDS),
        knee(vit, (("ViT", ()),), successes=SUCCESSES, seeds=SEEDS[:3]),
        analog_over_snr(cnn, (), snrs_db=(0, 5, 10, 15, 20, 25, 30), seeds=SEEDS),
        analog_over_snr(vit, (), snrs_db=(0, 10, 20, 30), seeds=SEEDS[:3]),
        local_rounds_at_equal_joules(
            _file("p2-digits-joules"), local_rounds=(1, 2, 5, 6, 10, 20, 50), practical_rate=0.5, seeds=SEEDS
        ),
    )


def _file(name: str) -> Path:
    return EXPERIMENTS / f"{name}.toml"


PAPERS = {
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
