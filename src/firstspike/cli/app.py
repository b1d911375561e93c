"""The verbs of the command line. torch is imported when a verb runs, so that --help is quick."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from firstspike.cli._jobs import OPTIONS, send
from firstspike.cli._options import Plugin
from firstspike.cli.bench import bench
from firstspike.cli.check import check
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
from firstspike.cli.tune import tune
from firstspike.cli.view import view
from firstspike.cli.zoo import zoo

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


def _with_plugins(verb: Callable[..., None], submits: bool) -> Callable[..., None]:
    """The verb with the option `--plugin`, whose files are imported before it runs.

    Verbs that take long also have the options of `firstspike.cli._jobs`.
    """
    signature = inspect.signature(verb, eval_str=True)

    def run(context: typer.Context, plugin: list[Path] | None, **arguments: Any) -> None:
        if submits:
            system, *options = (arguments.pop(name) for name in OPTIONS)
            if system is not None:
                send(context, system, *options)
                return
        if plugin:
            from firstspike.plugins import load_file

            for file in plugin:
                load_file(file)
        verb(**arguments)

    option = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=None)
    context = option.replace(name="context", annotation=typer.Context, default=option.empty)
    parameters = [*signature.parameters.values(), context, option.replace(annotation=Plugin)]
    for name, (annotation, default) in OPTIONS.items() if submits else ():
        parameters.append(option.replace(name=name, annotation=annotation, default=default))
    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


for verb in (
    demo,
    check,
    train,
    convert,
    evaluate,
    compare,
    tune,
    hardware,
    report,
    view,
    reproduce,
    export,
    bench,
    info,
    zoo,
):
    app.command()(_with_plugins(verb, submits=verb in (train, compare, tune, reproduce)))
