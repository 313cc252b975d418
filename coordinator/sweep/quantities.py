"""What a sweep shows of its runs, in its table and its picture: names, units, how numbers are written."""

from typing import NamedTuple

from coordinator.sweep.intervals import CONFIDENCE
from coordinator.sweep.record import SweepRecord
from protocol.experiment_file import unit_of


class Quantity(NamedTuple):
    """One of a sweep's numbers."""

    name: str
    """In `Numbers`."""
    title: str
    column: str
    """Head of its column, with its unit."""
    axis: str
    """Label of its axis, with its unit."""
    form: str
    """How its numbers are written."""
    nothing: str
    """Why there may be none."""
    is_share: bool = False
    """Whether its numbers are at most 1."""


QUANTITIES = (
    Quantity(
        "accuracy_mean",
        "test accuracy",
        "accuracy",
        "share classified correctly",
        ".4f",
        "nothing was tested",
        is_share=True,
    ),
    Quantity(
        "joules", "energy", "energy (J)", "all devices, whole run [J]", ".4g", "no modelled time was kept"
    ),
    Quantity(
        "air_s", "modelled time", "time (air s)", "whole run [air s]", ".4g", "no modelled time was kept"
    ),
    Quantity(
        "consensus_distance",
        "consensus distance",
        "consensus distance",
        "L2 distance to the mean parameters",
        ".4g",
        "no parameters were written",
    ),
    Quantity(
        "packet_loss",
        "packet loss",
        "packet loss",
        "share of packets sent",
        ".3g",
        "no packets over a digital radio",
        is_share=True,
    ),
)


def axis_label(key: str) -> str:
    """Name what is swept, with its unit."""
    unit = unit_of(key)
    return f"{key} [{unit}]" if unit else key


def interval_note(record: SweepRecord) -> str:
    """Say what means and intervals are made of."""
    numbers = sorted({cell.num_finished for cell in record.cells if cell.num_finished})
    if not numbers or numbers[-1] == 1:
        return "one seed: no interval"
    n = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"mean and {100 * CONFIDENCE:g} % interval by Student's t, n = {n} seeds"
