"""Tables of what the planner intends: the work of devices, the aggregation, and what theory says of both."""

from collections.abc import Iterator
from math import inf

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree as Branch

from coordinator.planning.aggregation import PlannedAggregation
from coordinator.planning.findings import LeastSuccess, PlannedBounds
from coordinator.planning.scheme import DigitalOrAnalog
from coordinator.planning.theory import PlannedTheory
from coordinator.planning.work import PlannedRun, Suggestion

MAX_DEVICES = 40
MAX_NAMED = 8
NO_FORECAST = "bounds rank choices, they do not predict losses"


def work_table(run: PlannedRun) -> Table:
    """Lay out what each device would do, and what that takes of its budgets."""
    caption = left_out(len(run.devices), MAX_DEVICES)
    caption.append(f"all devices together: {_si(run.joules, 'J')} in {_si(run.air_s, 's')}")
    if run.bottleneck is not None:
        caption.append(f"bottleneck: device {run.bottleneck}, {run.bottleneck_reason}")
    caption += [
        f"{name}: {_suggested(s)}" for name, s in (("uniform", run.uniform), ("K and tau", run.joint)) if s
    ]
    caption += [
        f"device {device} leaves after {work.rounds} rounds: its {work.stopped_by} are at an end"
        for device, work in enumerate(run.devices)
        if work.stopped_by
    ]
    table = Table(
        title="work",
        title_justify="left",
        caption="\n".join(caption),
        caption_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    names = ("device", "tau", "mean", "last", "pays", "best", "bound by", "J", "air s")
    for name in names:
        table.add_column(name, justify="right")
    for device, work in enumerate(run.devices[:MAX_DEVICES]):
        table.add_row(
            str(device),
            str(work.local_rounds_first),
            f"{work.local_rounds_mean:.3g}",
            str(work.local_rounds_last),
            _or_dash(work.local_rounds_affordable),
            _or_dash(work.local_rounds_best),
            work.binding or "-",
            f"{work.joules:.3g}{_share(work.joules_share)}",
            f"{work.air_s:.3g}{_share(work.air_s_share)}",
        )
    return table


def left_out(number: int, most: int) -> list[str]:
    """Say below a table of so many lines at most how many there would be more."""
    return [f"… {number - most:,} more (--json has all)"] if number > most else []


def aggregation_parts(aggregation: PlannedAggregation) -> list[RenderableType]:
    """Draw the tree or ring of the first epoch, and lay out what else there is."""
    table = Table(
        title=escape(f"one aggregation: {aggregation.reason}"),
        title_justify="left",
        caption="joules of all devices, without idling; seconds from when all are ready",
        caption_justify="left",
    )
    table.add_column("scheme")
    for name in ("sending (J)", "sending and receiving (J)", "time (air s)", "exact"):
        table.add_column(name, justify="right")
    for one in aggregation.alternatives:
        exact = "yes" if one.exact else "no"
        table.add_row(one.name, f"{one.tx_joules:.4g}", f"{one.joules:.4g}", f"{one.air_s:.4g}", exact)
    drawing = _tree(aggregation) if aggregation.scheme == "tree" else _ring(aggregation)
    return [*([drawing] if drawing else []), table]


def _tree(aggregation: PlannedAggregation) -> Branch:
    up = {
        hop.sender: hop.joules for hop in aggregation.hops if _is_up(aggregation, hop.sender, hop.receivers)
    }
    down: dict[int, float] = {}
    for hop in aggregation.hops:
        if not _is_up(aggregation, hop.sender, hop.receivers):
            down[hop.sender] = down.get(hop.sender, 0.0) + hop.joules
    children: dict[int, list[int]] = {}
    for device, parent in enumerate(aggregation.parents):
        children.setdefault(parent, []).append(device)

    def label(device: int) -> str:
        parts = [f"{device}"]
        if device in up:
            parts.append(f"up {_si(up[device], 'J')}")
        if device in down:
            parts.append(f"down to {len(children[device])}: {_si(down[device], 'J')}")
        return "  ".join(parts)

    [root] = children[-1]
    total = f"{_si(aggregation.joules, 'J')}, {_si(aggregation.air_s, 's')}"
    branch = Branch(f"tree ({total}): {label(root)}")
    places = [(root, branch)]
    for device, place in places:  # grows as it goes
        places += [(child, place.add(label(child))) for child in children.get(device, ())]
    return branch


def _is_up(aggregation: PlannedAggregation, sender: int, receivers: tuple[int, ...]) -> bool:
    return receivers == (aggregation.parents[sender],)


def _ring(aggregation: PlannedAggregation) -> str:
    if aggregation.scheme != "ring":
        return ""
    hops = [f"{hop.sender} -{_si(hop.joules, 'J')}-> " for hop in aggregation.hops]
    total = f"{_si(aggregation.joules, 'J')}, {_si(aggregation.air_s, 's')}"
    return f"ring ({total}): {''.join(hops)}{aggregation.order[0]}"


def theory_table(theory: PlannedTheory) -> Table:
    """Lay out the bounds, or what they would need."""
    table = Table(
        title=escape(f"theory, constants from {theory.constants.source}"),
        title_justify="left",
        show_header=False,
        caption=NO_FORECAST,
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    table.add_column("", justify="right", overflow="fold")
    agreement, known = theory.agreement, theory.constants
    table.add_row("contraction per sweep, rho", f"{agreement.contraction:.4f}")
    table.add_row(
        f"consensus rate of {agreement.num_sweeps} sweep(s), delta", f"{agreement.consensus_rate:.4f}"
    )
    table.add_row(
        "packets that count, mean and worst link",
        f"{agreement.success_mean:.2%}, {agreement.success_min:.2%}",
    )
    values = (known.smoothness, known.gradient_variance, known.heterogeneity, known.initial_gap, known.target)
    for name, value in zip(("L", "sigma^2", "zeta^2", "Delta", "target"), values, strict=True):
        if value is not None:
            table.add_row(name, f"{value:.4g}")
    for name, text in _bounds(theory.bounds) if theory.bounds else ():
        table.add_row(name, text)
    if theory.digital_or_analog is not None:
        table.add_row("digital or analog", _either(theory.digital_or_analog))
    if theory.unknown:
        table.add_row("unknown", escape(theory.unknown))
    return table


def _bounds(bounds: PlannedBounds) -> Iterator[tuple[str, str]]:
    if bounds.violated:
        yield (
            f"bound {bounds.of}",
            f"does not hold with eta = {bounds.learning_rate:.3g}: {'; '.join(bounds.violated)}; "
            f"it would up to {bounds.learning_rate_at_most:.3g}",
        )
    elif bounds.value is not None:
        yield f"bound {bounds.of} on the squared gradient norm", f"{bounds.value:.4g}"
    if bounds.rounds_to_target is not None:
        yield "rounds to the target, at most", f"{bounds.rounds_to_target:,}"
    yield "least probability of correct communication, p_min", _least(bounds.least_success)
    if bounds.least_success.num_sweeps is not None:
        yield "sweeps that would do over these links", f"{bounds.least_success.num_sweeps}"
    if bounds.complexity is not None:
        found = bounds.complexity
        yield (
            "communication complexity of gossip",
            f"{found.rounds:,} rounds, {_si(found.bits, 'bit')}, with eta = {found.learning_rate:.3g}",
        )
    for split in bounds.splits:
        yield (
            f"best split of {_si(split.budget, 'J' if split.resource == 'joules' else 's')} with gossip",
            f"tau* = {split.local_rounds}, {split.sweeps} sweep(s), {split.rounds:,} rounds",
        )
    if bounds.tolerable_noise is not None:
        noise = bounds.tolerable_noise
        yield (
            "tolerable accumulated noise",
            f"{noise.noise_power_sum:.3g}: a squared norm of {noise.norm_sq_at_most:.3g} sent each round",
        )


def _least(least: LeastSuccess) -> str:
    instead = ""
    if least.learning_rate is not None:
        instead = f"; perfect links would do with eta = {least.learning_rate:.3g}"
    if least.consensus_rate_needed is None:
        return f"none: not even exact averaging meets the target with this eta in these rounds{instead}"
    needed = f"delta must be {least.consensus_rate_needed:.3g}"
    met = "these links meet it" if least.is_met else "these links do not meet it"
    if least.probability is None:
        return f"none ({needed}){instead}"
    missing = ""
    if least.links_below:
        named = ", ".join(f"{a}-{b}" for a, b in least.links_below[:MAX_NAMED])
        more = len(least.links_below) - MAX_NAMED
        missing = f"; below it: {named}" + (f" and {more} more" if more > 0 else "")
    return f"{least.probability:.4f} ({needed}; {met}{missing})"


def _either(either: DigitalOrAnalog) -> str:
    digital = f"digital {_bound(either.digital_bound)} after {either.digital_rounds:,} rounds"
    analog = f"analog without noise {_bound(either.analog_bound)} after {either.analog_rounds:,}"
    if not either.noise_power_at_most:
        return f"digital: {digital}, {analog}"
    return (
        f"analog while its noise is below {either.noise_power_at_most:.3g} a round (a squared norm of "
        f"{either.norm_sq_at_most:.3g} sent), else digital: {digital}, {analog}"
    )


def _bound(value: float) -> str:
    return "nothing" if value == inf else f"{value:.3g}"


def _suggested(one: Suggestion) -> str:
    whose = "" if one.device is None else f" of device {one.device}"
    return f"{one.local_rounds} local rounds in {one.rounds:,} rounds, bound by {one.binding}{whose}"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number}"


def _share(share: float | None) -> str:
    return "" if share is None else f" ({share:.0%})"


def _si(value: float, unit: str) -> str:
    """Write a quantity with the prefix that leaves one to three digits before the point."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"0 {unit}" if not value else f"{value:.3g} {unit}"


_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"))
