"""P2: analog gossip against SNR: models, whose noise stays, or differences from refreshed copies."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coordinator.drawing import dress, log_scale_if_wide
from coordinator.reproduce.comparison import (
    Arm,
    Comparison,
    Measured,
    Shown,
    Table,
    accuracy,
    consensus_distance,
)
from coordinator.reproduce.curves import Curve, columns, draw_curves, legend, panels, ticks_at
from coordinator.reproduce.verdicts import Case, interval, judge
from protocol.experiment_file import load

TOLERANCE = 0.02
"""Of accuracy."""
PAYLOADS = {
    "models": ("radio.analog.payload=models",),
    "differences, refreshed": ("radio.analog.payload=differences", "radio.analog.refresh_rounds=5"),
}


def analog_over_snr(
    file: Path, overrides: tuple[str, ...], *, snrs_db: Sequence[float], seeds: Sequence[int]
) -> Comparison:
    """Compare both payloads over the SNR."""
    base = load(file, overrides)
    on = (*overrides, "radio.scheme=analog", "radio.fading=rayleigh")
    return Comparison(
        name=f"analog-{base.name.removeprefix('p2-')}",
        title=f"Analog gossip against SNR: models or refreshed differences ({base.name})",
        text=f"{base.devices} devices in a {base.graph.kind} send the numbers themselves; neighbours' "
        "signals add up in the air, fades are inverted or, below a gain of 0.1, left out. The noise follows "
        "the norm of what is sent. A model does not shrink, so sent as it is it brings as much noise in each "
        "round; the difference from a copy that the receiver holds shrinks as training converges. The copies "
        "are replaced digitally every 5 rounds.",
        file=file,
        arms=tuple(
            Arm(_name(payload, snr_db), (*on, *changes, f"radio.snr_db={snr_db:g}"))
            for payload, changes in PAYLOADS.items()
            for snr_db in snrs_db
        ),
        seeds=tuple(seeds),
        show=partial(_show, tuple(snrs_db)),
    )


def _show(snrs_db: Sequence[float], measured: Measured) -> Shown:
    figure, [left, right] = panels(2)
    x = "mean SNR of every link [dB]"
    dress(left, "test accuracy", x, "share classified correctly", aside="mean and 95 % interval")
    dress(right, "consensus distance", x, "L2 distance to the mean parameters")
    for axes, quantity in ((left, accuracy), (right, consensus_distance)):
        curves = [
            Curve(payload, snrs_db, [measured.estimate(_name(payload, s), quantity) for s in snrs_db])
            for payload in PAYLOADS
        ]
        draw_curves(axes, curves)
        ticks_at(axes, snrs_db)
        legend(axes)
        if axes is right:
            mean, _ = columns([one for curve in curves for one in curve.estimates])
            log_scale_if_wide(axes, mean[mean > 0])
    left.set_ylim(0, 1)
    models, differences = PAYLOADS
    low = min(snrs_db)
    return Shown(
        figure=figure,
        caption="Rayleigh fading, truncated channel inversion, over-the-air sums, no damping of the mixing.",
        table=Table(
            head=("sent", "SNR [dB]", "accuracy", "consensus distance", "energy [J]", "seeds"),
            rows=[
                (
                    payload,
                    f"{snr_db:g}",
                    interval(measured.estimate(_name(payload, snr_db), accuracy)),
                    interval(measured.estimate(_name(payload, snr_db), consensus_distance)),
                    interval(measured.estimate(_name(payload, snr_db), lambda run: run.summary.joules)),
                    f"{len(measured.of(_name(payload, snr_db)))}",
                )
                for payload in PAYLOADS
                for snr_db in snrs_db
            ],
        ),
        verdicts=(
            judge(
                f"At {low:g} dB refreshed differences learn better than models",
                [Case("accuracy gained", _gains(measured, low), low=0.0)],
            ),
            judge(
                f"At {low:g} dB refreshed differences leave devices at most half as far apart",
                [
                    Case(
                        "ratio of distances",
                        measured.ratios(_name(differences, low), _name(models, low), consensus_distance),
                        high=0.5,
                    )
                ],
            ),
            judge(
                f"At {max(snrs_db):g} dB models do no worse than differences, within {TOLERANCE:g}",
                [Case("accuracy gained by differences", _gains(measured, max(snrs_db)), high=TOLERANCE)],
            ),
        ),
    )


def _gains(measured: Measured, snr_db: float) -> list[float]:
    models, differences = PAYLOADS
    return measured.differences(_name(differences, snr_db), _name(models, snr_db), accuracy)


def _name(payload: str, snr_db: float) -> str:
    return f"{payload}, {snr_db:g} dB"
