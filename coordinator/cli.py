"""The `hearsay` command. Imports of weight stay inside the commands, so that `--help` is quick."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from protocol.errors import BadInput, HearsayError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128

app = typer.Typer(
    help="Decentralized federated learning over wireless networks: real processes, a radio on every link.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    as_json: AsJson = False,
) -> None:
    """Run an experiment on this machine, each device a process of its own."""
    with _errors_in_one_line():
        from rich.console import Console

        from coordinator.interrupt import Interrupt
        from coordinator.live import LiveView
        from coordinator.run import run_and_compare
        from coordinator.tables import summary_table
        from protocol.experiment_file import load

        experiment = load(file, overrides or ())
        console = Console(stderr=as_json)
        with Interrupt.caught() as interrupt:
            summary = run_and_compare(
                experiment,
                out,
                [name for name in compare.split(",") if name],
                watch=lambda title, variant: LiveView(console, variant, title),
                interrupt=interrupt,
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
def plan(file: File, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what a run would be, without running it: model, data, graph and links."""
    with _errors_in_one_line():
        from rich.console import Console

        from coordinator.plan import make_plan
        from coordinator.tables import plan_tables
        from protocol.experiment_file import load

        experiment = load(file, overrides or ())
        console = Console(stderr=as_json)
        with console.status("asking for model and data"):
            made = make_plan(experiment)
        if as_json:
            typer.echo(made.model_dump_json())
        else:
            console.print(*plan_tables(made), sep="\n")


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the experiment file."""
    from protocol.experiment_file import schema

    typer.echo(schema())


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except HearsayError as error:
        sys.stderr.write(f"hearsay: {error}\n")
        raise typer.Exit(EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_FAILED) from error
