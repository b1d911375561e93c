"""Options that send a verb to a batch system instead of running it here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Submit = Annotated[
    str | None,
    typer.Option(metavar="SYSTEM", help="Run as a job of a batch system: slurm, or local."),
]
Jobs = Annotated[int, typer.Option(help="Jobs that share the work (tune).", min=1)]
JobOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Of the batch system, as submitit names it: timeout_min=60, slurm_partition=gpu, "
        "cpus_per_task=4, ...; may be repeated.",
    ),
]
JobFolder = Annotated[Path, typer.Option(help="Folder of job scripts and logs.")]

OPTIONS: dict[str, tuple[Any, Any]] = {  # parameter -> annotation, default
    "submit": (Submit, None),
    "jobs": (Jobs, 1),
    "job_option": (JobOption, None),
    "job_folder": (JobFolder, Path("runs/jobs")),
}
SHARING = ("tune",)  # verbs whose jobs divide the work among themselves


def send(
    context: typer.Context, system: str, jobs: int, job_option: list[str] | None, job_folder: Path
) -> None:
    """Queue the command that is being run, less the options of this file."""
    from firstspike.cluster import read_options, submit

    arguments = typed_arguments(context, leave_out=tuple(OPTIONS))
    verb = arguments[0]
    if jobs > 1 and verb not in SHARING:
        raise ValueError(
            f"`--jobs` must be 1 for {verb}, got {jobs}: jobs share the work of "
            f"{', '.join(SHARING)} alone. Under torchrun, processes of one job share a training."
        )
    commands = [arguments, *[[*arguments, "--worker"]] * (jobs - 1)]
    sent = submit(commands, system, job_folder, options=read_options(job_option or []))
    for job in sent:
        typer.echo(f"queued job {job.job_id}; log: {job.paths.stdout}")


def typed_arguments(context: typer.Context, leave_out: tuple[str, ...] = ()) -> list[str]:
    """The command line of the verb that is being run, from what was given on it."""
    arguments = [str(context.info_name)]
    for parameter in context.command.params:
        name, value = parameter.name, context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(name))
        if source is None or source.name != "COMMANDLINE" or name in leave_out:
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "option":
            if getattr(parameter, "is_flag", False):
                names = parameter.opts if value else parameter.secondary_opts
                arguments.append(names[0])
            else:
                arguments += [f"{parameter.opts[0]}={each}" for each in values]
        else:
            arguments += [str(each) for each in values]
    return arguments
