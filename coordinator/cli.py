"""The `hearsay` command. Imports of weight stay inside the commands, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from coordinator.bench.cli import bench
from coordinator.exits import EXIT_SIGNAL, errors_in_one_line
from protocol.errors import EXIT_FAILED, BadInput

app = typer.Typer(
    help="Decentralized federated learning over wireless networks: real processes, a radio on every link.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench, name="bench")

render_app = typer.Typer(help="Write an experiment as a file that another program starts it from.")
app.add_typer(render_app, name="render")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hearsay {version('hearsay')}")
        raise typer.Exit


File = Annotated[Path, typer.Argument(metavar="FILE", help="The experiment, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, as in graph.kind=ring; repeatable."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout at the end, all else on stderr.")
]


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Read the options that stand before the command."""


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run, new or empty (default: runs/<run id>)."),
    ] = None,
    compare: Annotated[
        str, typer.Option(metavar="NAMES", help="Run again under other conditions: isolated,ideal.")
    ] = "",
    listen: Annotated[
        str,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Start no devices, and wait there for those that others start, in containers or on other "
            "hosts: python -m node --coordinator tcp://HOST:PORT. They must see the run's folder under the "
            "same path.",
        ),
    ] = "",
    as_many_as: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --listen: as many devices as this host name has addresses, as the replicas behind a "
            "service have.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Run an experiment: each device a process of its own, of this machine unless --listen is given."""
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.launch.launcher import Elsewhere, Here, count_addresses
        from coordinator.live import LiveView
        from coordinator.run import run_and_compare
        from coordinator.tables import summary_table
        from protocol.experiment_file import load

        experiment, launcher = load(file, overrides or ()), Elsewhere(listen) if listen else Here()
        if listen and compare:
            raise BadInput(
                "--compare: runs again, which devices that others start do not; leave out --listen"
            )
        if as_many_as and not listen:
            raise BadInput("--as-many-as: only where others start the devices; add --listen tcp://HOST:PORT")
        console = Console(stderr=as_json)
        with Interrupt.caught() as interrupt:
            if as_many_as:
                number = count_addresses(as_many_as, experiment.runtime.join_wall_s, interrupt)
                experiment = load(file, [*(overrides or ()), f"devices={number}"])
            summary = run_and_compare(
                experiment,
                out,
                [name for name in compare.split(",") if name],
                watch=lambda title, variant: LiveView(console, variant, title),
                interrupt=interrupt,
                launcher=launcher,
            )
        if summary is not None:
            if as_json:
                typer.echo(summary.model_dump_json())
            console.print(summary_table(summary))
            console.print(f"run folder: {summary.run_dir}", soft_wrap=True, highlight=False, markup=False)
        elif interrupt.count:
            typer.echo("hearsay: interrupted before the first round; nothing was kept", err=True)
        if interrupt.count:
            raise typer.Exit(EXIT_SIGNAL + interrupt.number)


@app.command()
def plan(
    file: File,
    overrides: Overrides = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN_DIR",
            help="Take the constants of the bounds from what the devices of a run have measured "
            "(training.pilot_rounds).",
        ),
    ] = None,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="K",
            help="Measure the constants of the bounds first, in K rounds over an ideal radio.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would be, without running it: data, links, work, aggregation and bounds."""
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.plan import make_plan
        from coordinator.planning.pilots import parse_pilot, with_constants_from, with_pilots
        from coordinator.tables import plan_tables
        from protocol.errors import Interrupted
        from protocol.experiment_file import load

        experiment, source = load(file, overrides or ()), "[theory] of the experiment"
        if from_run is not None and pilot is not None:
            raise BadInput("--from and --pilot: constants come from one or the other")
        console = Console(stderr=as_json)
        if from_run is not None:
            experiment, source = with_constants_from(experiment, from_run), f"{from_run}"
        if pilot is not None:
            num_rounds = parse_pilot(pilot)
            with console.status(f"pilot rounds: {num_rounds}"), Interrupt.caught() as interrupt:
                try:
                    experiment = with_pilots(experiment, num_rounds, interrupt)
                except Interrupted as stopped:
                    raise typer.Exit(EXIT_SIGNAL + interrupt.number) from stopped
            source = f"{num_rounds} pilot rounds"
        with console.status("asking for model and data"):
            made = make_plan(experiment, source=source)
        if as_json:
            typer.echo(made.model_dump_json())
        else:
            console.print(*plan_tables(made), sep="\n")


@app.command()
def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The experiment, a TOML file (default: that of the quickstart).",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that the run would have (default: in runs).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at this machine before a start: what fits, what is missing, and what to do about it.

    The exit code is 1 if something red stands in the way of `hearsay run`.
    """
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.doctor.doctor import examine, experiment_of
        from coordinator.doctor.table import diagnosis_tables
        from coordinator.interrupt import Interrupt
        from protocol.errors import Interrupted

        experiment, console = experiment_of(file, overrides or ()), Console(stderr=as_json)
        with console.status("looking around"), Interrupt.caught() as interrupt:
            try:
                diagnosis = examine(experiment, out, interrupt)
            except Interrupted as stopped:
                typer.echo("hearsay: interrupted", err=True)
                raise typer.Exit(EXIT_SIGNAL + interrupt.number) from stopped
        if as_json:
            typer.echo(diagnosis.model_dump_json())
        else:
            console.width = max(console.width, 0 if console.is_terminal else 160)
            console.print(*diagnosis_tables(diagnosis), sep="\n")
        if not diagnosis.starts:
            raise typer.Exit(EXIT_FAILED)


@app.command()
def sweep(
    file: File,
    axes: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUES",
            help="What varies: FIRST:LAST:STEP, both ends included (the step of whole numbers is 1 unless "
            "given), or values separated by commas. All combinations are run; over seed, means are taken.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    jobs: Annotated[str, typer.Option(metavar="NUMBER", help="Runs at a time.")] = "1",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the sweep: a new one, or that of an interrupted sweep, to go on with it "
            "(default: runs/sweep-<name>-<time>).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an experiment for every combination of some values, and compare: table, picture, intervals.

    As in: hearsay sweep FILE radio.tx_power_dbm=0:20:5 graph.kind=ring,complete seed=1:5 --jobs 2
    """
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.sweep.grid import lay_out_grid
        from coordinator.sweep.progress import SweepView
        from coordinator.sweep.sweep import parse_jobs
        from coordinator.sweep.sweep import sweep as sweep_grid
        from coordinator.sweep.table import print_results

        num_jobs, grid = parse_jobs(jobs), lay_out_grid(file, overrides or (), axes)
        view = SweepView(Console(stderr=True), f"sweep of {grid.name}", len(grid.points))
        with Interrupt.caught() as interrupt, view:
            swept = sweep_grid(grid, out, jobs=num_jobs, view=view, interrupt=interrupt)
        if as_json:
            typer.echo(swept.record.model_dump_json())
        print_results(swept, Console(stderr=as_json))
        if interrupt.count:
            raise typer.Exit(EXIT_SIGNAL + interrupt.number)
        if swept.record.failed:
            raise typer.Exit(EXIT_FAILED)


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(metavar="p1|p2", help="Which paper's comparisons.")],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="On digits, minutes on two cores; else on Fashion-MNIST and CIFAR-10."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the page: a new one, or that of an interrupted call, to go on with it "
            "(default: runs/reproduce-<paper>-<time>).",
        ),
    ] = None,
    jobs: Annotated[str, typer.Option(metavar="NUMBER", help="Runs at a time.")] = "2",
) -> None:
    """Run the comparisons of a paper that this project rests on: one page of figures, tables and verdicts.

    p1: adaptive local rounds and energy-saving aggregation, arXiv 2403.20075. p2: digital and analog
    exchanges, arXiv 2308.06496. A claim that does not show is a result: the page says so, and the exit code
    is 0.
    """
    with errors_in_one_line():
        from shlex import join

        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.reproduce.folder import Mark, page_folder
        from coordinator.reproduce.page import Call, write_page
        from coordinator.reproduce.papers import find_paper
        from coordinator.reproduce.reproduce import reproduce as reproduce_all
        from coordinator.reproduce.reproduce import tasks_of
        from coordinator.reproduce.table import print_page
        from coordinator.sweep.progress import SweepView
        from coordinator.sweep.sweep import parse_jobs

        num_jobs, found = parse_jobs(jobs), find_paper(paper)
        comparisons = found.quick() if quick else found.full()
        with page_folder(out, Mark(paper=paper, quick=quick)) as folder:
            num_runs = len(tasks_of(comparisons, folder))
            view = SweepView(Console(stderr=True), f"reproduce {paper}", num_runs)
            with Interrupt.caught() as interrupt, view:
                reproduced = reproduce_all(comparisons, folder, jobs=num_jobs, view=view, interrupt=interrupt)
            options = ["--quick"] * quick + ["--jobs", jobs] + (["--out", str(out)] if out else [])
            command = join(["hearsay", "reproduce", paper, *options])
            call = Call(command, quick, num_jobs, interrupted=interrupt.count > 0)
            page = write_page(found, reproduced, call, folder)
        print_page(reproduced, page, Console())
        if interrupt.count:
            raise typer.Exit(EXIT_SIGNAL + interrupt.number)
        if reproduced.failures:
            raise typer.Exit(EXIT_FAILED)


@render_app.command("compose")
def render_compose(
    file: File,
    overrides: Overrides = None,
    cores: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Cores of the fastest device; the others have the share that device.cpu_hz gives them "
            "(default: runtime.torch_threads).",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it (default: stdout).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file if it is there.")] = False,
) -> None:
    """Write an experiment as a compose file: a container for each device, with the limits it would have."""
    with errors_in_one_line():
        from coordinator.device import survey
        from coordinator.render.compose import Source, parse_cores, render_compose
        from coordinator.render.output import refuse_output, write_output
        from protocol.experiment_file import load

        experiment, source = load(file, overrides or ()), Source(file, tuple(overrides or ()), out)
        given = parse_cores(cores, experiment)
        if out is not None:
            refuse_output(out, force=force)
        text = render_compose(experiment, survey(experiment), source, cores=given)
        if out is None:
            typer.echo(text, nl=False)
        else:
            write_output(text, out)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the experiment file."""
    from protocol.experiment_file import schema

    typer.echo(schema())


@app.command()
def link(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="An experiment, a TOML file, whose radio, codec, device and seed are put on the bench "
            "(default: the usual ones).",
            show_default=False,
        ),
    ] = None,
    modulation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="bpsk, qpsk, qam16, qam64 or qam256; with --sweep also several, as in qpsk,qam16 "
            "(default: that of FILE, or qpsk).",
        ),
    ] = "",
    fading: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="none, rayleigh, rician:K (K is linear) or nakagami:M; with --sweep also several, as in "
            "none,rician:6 (default: that of FILE, or rayleigh).",
        ),
    ] = "",
    snr_db: Annotated[
        str | None,
        typer.Option(
            metavar="DB",
            help="Es/N0 of the receiver in dB, its mean over the fading "
            "(default: radio.snr_db of FILE, or 20).",
        ),
    ] = None,
    distance_m: Annotated[
        str | None,
        typer.Option(
            metavar="METRES",
            help="Distance in metres: takes the mean Es/N0 from transmit power, path loss without shadowing, "
            "and noise instead of --snr-db (default: none).",
        ),
    ] = None,
    packet_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Size of a radio packet in bytes, checksum included (default: that of FILE, or 256).",
        ),
    ] = None,
    packets: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER", help="Packets to send (default: 20000, or 2000 at each point of a sweep)."
        ),
    ] = None,
    coherence_packets: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Packets that meet the same fade; 0: a fade lasts for a frame of 128 packets and all of its "
            "repeats (default: that of FILE where it is not 0, else 1: a fade for every packet, so that as "
            "many fades as packets stand behind what is held against theory).",
        ),
    ] = None,
    arq: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="none, or selective_repeat: packets that fail their CRC are sent again "
            "(default: that of FILE, or none).",
        ),
    ] = "",
    max_attempts: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="With selective_repeat: times that a packet is sent at most (default: that of FILE, or 4).",
        ),
    ] = None,
    tx_power_dbm: Annotated[
        str | None,
        typer.Option(
            metavar="DBM",
            help="Transmit power in dBm, for joules and for --distance-m (default: that of FILE, or 10).",
        ),
    ] = None,
    bandwidth_hz: Annotated[
        str | None,
        typer.Option(
            metavar="HZ",
            help="Bandwidth in Hz, which is also the symbol rate (default: that of FILE, or 1e6).",
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Seed of fades, bit errors and payload; that of a sweep's first point, the next ones take "
            "the next ones (default: that of FILE, or 1).",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of the experiment, as in radio.code_rate=0.5; repeatable.",
        ),
    ] = None,
    sweep: Annotated[
        str,
        typer.Option(
            metavar="NAME=A:B:STEP",
            help="Measure from A to B, both included, in equal steps of any option above that is a number, "
            "as in snr-db=-5:30:1 (default: one point).",
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="With --sweep: draw bit-error rate, packet loss, goodput and energy into this file "
            "(default: no picture).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put one link on the bench: what its packets meet, measured and in theory."""
    numbers = {
        "snr-db": snr_db,
        "distance-m": distance_m,
        "packet-bytes": packet_bytes,
        "packets": packets,
        "coherence-packets": coherence_packets,
        "max-attempts": max_attempts,
        "tx-power-dbm": tx_power_dbm,
        "bandwidth-hz": bandwidth_hz,
        "seed": seed,
    }
    with errors_in_one_line():
        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.link.options import LinkOptions, set_up
        from coordinator.link.sweep import measure_sweep
        from coordinator.link.table import link_table, sweep_table
        from coordinator.patience import Patience
        from protocol.errors import Interrupted

        given = {name: text for name, text in numbers.items() if text is not None}
        to_do = set_up(
            LinkOptions(file, tuple(overrides or ()), modulation, fading, arq, numbers=given, sweep=sweep)
        )
        if plot is not None:
            if not sweep:
                raise BadInput(f"--plot {plot}: draws a sweep; add --sweep, as in snr-db=-5:30:1")
            from coordinator.link.waterfall import draw, refuse_unwritable

            refuse_unwritable(plot)
        with (
            Interrupt.caught() as interrupt,
            Patience(Console(stderr=True), "sending packets", to_do.num_packets) as patience,
        ):

            def tick(done: int) -> None:
                patience.advance(done)
                if interrupt.count:
                    raise Interrupted

            try:
                measured = measure_sweep(to_do, tick=tick)
                if plot is not None:
                    draw(to_do, measured, plot)
            except Interrupted as stopped:
                typer.echo("hearsay: interrupted; nothing was written", err=True)
                raise typer.Exit(EXIT_SIGNAL + interrupt.number) from stopped
        console = Console()
        if not sweep:
            [[point]] = measured
            if as_json:
                typer.echo(point.model_dump_json())
            else:
                console.print(link_table(point))
            return
        if as_json:
            from json import dumps

            points = [point.model_dump() for curve in measured for point in curve]
            typer.echo(dumps({"swept": to_do.swept, "sweep": points}))
        else:
            console.width = max(console.width, 0 if console.is_terminal else 160)
            console.print(sweep_table(to_do, measured))
            if plot is not None:
                console.print(f"picture: {plot}", soft_wrap=True, highlight=False, markup=False)
