"""The verbs of the command line. torch is imported when a verb runs, so that --help is quick."""

from __future__ import annotations

import typer

from firstspike.cli.bench import bench
from firstspike.cli.compare import compare
from firstspike.cli.convert import convert
from firstspike.cli.demo import demo
from firstspike.cli.evaluate import evaluate
from firstspike.cli.export import export
from firstspike.cli.hardware import hardware
from firstspike.cli.info import info
from firstspike.cli.report import report
from firstspike.cli.reproduce import reproduce
from firstspike.cli.train import train
from firstspike.cli.view import view

app = typer.Typer(
    name="firstspike",
    help="Temporal-coded deep spiking neural networks: convert, train, simulate, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from firstspike import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


for verb in (
    demo,
    train,
    convert,
    evaluate,
    compare,
    hardware,
    report,
    view,
    reproduce,
    export,
    bench,
    info,
):
    app.command()(verb)
