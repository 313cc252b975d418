"""`hearsay bench`: what a round takes here, and whether it takes longer than before."""

from pathlib import Path
from typing import Annotated

import typer

from coordinator.exits import EXIT_SIGNAL, errors_in_one_line

bench = typer.Typer(help="Measure what a round takes on this host, and compare.", no_args_is_help=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout at the end, all else on stderr.")
]


@bench.command()
def latency(
    devices: Annotated[str, typer.Option(metavar="NUMBERS", help="Devices on a ring, 3 or more.")] = "4,8,16",
    params: Annotated[
        str,
        typer.Option(metavar="SIZES", help="100k, 1.6M, or quickstart: the model of that experiment."),
    ] = "100k,1.6M",
    transport: Annotated[
        str, typer.Option(metavar="KINDS", help="As transport.kind (default: all).", show_default=False)
    ] = "",
    radio: Annotated[str, typer.Option(metavar="SCHEMES", help="As radio.scheme.")] = "ideal,digital",
    rounds: Annotated[
        str, typer.Option(metavar="NUMBER", help="Rounds of a run, beside those of its warm-up.")
    ] = "50",
    repeats: Annotated[
        str, typer.Option(metavar="NUMBER", help="Repeats, each in turn over all cases.")
    ] = "3",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the numbers and the picture, new or empty (default: runs/bench-latency-<time>).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure rounds of real runs, stage by stage, beside the floor: percentiles, memory, start-up.

    Takes minutes. How it scales: hearsay bench latency --devices 8,16,32,64,128 --params quickstart
    --transport zmq --radio ideal
    """
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.bench.cases import TRANSPORTS, Options, order, parse_request
        from coordinator.bench.latency import Bench, bench_folder, measure_all
        from coordinator.bench.table import print_bench
        from coordinator.interrupt import Interrupt
        from coordinator.patience import Patience

        chosen = Options(devices, params, transport or ",".join(TRANSPORTS), radio, rounds, repeats)
        request = parse_request(chosen)
        num_steps = len(order(request))
        what = f"measuring {len(request.cases)} cases, {request.repeats} times"
        with bench_folder(out) as folder, Interrupt.caught() as interrupt:
            made = Bench(request, folder, interrupt)
            with Patience(Console(stderr=True), what, num_steps) as patience:
                record = measure_all(made, lambda _: patience.advance(1))
            if record.cases:
                if as_json:
                    typer.echo(record.model_dump_json())
                print_bench(record, made, Console(stderr=as_json))
            else:
                typer.echo("hearsay: interrupted before a run was finished; nothing was kept", err=True)
        if interrupt.count:
            raise typer.Exit(EXIT_SIGNAL + interrupt.number)


@bench.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A bench.json, measured before.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one, of the same cases.")],
    as_json: AsJson = False,
) -> None:
    """Say which differences between two measurements are real."""
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.bench.compare import compare as compare_files
        from coordinator.bench.comparison_table import comparison_table

        found = compare_files(a, b)
        if as_json:
            typer.echo(found.model_dump_json())
            return
        console = Console()
        console.width = max(console.width, 0 if console.is_terminal else 160)
        console.print(comparison_table(found))
