"""A verb of the command line as a job of a batch system, through submitit.

A job runs the command that was typed, less `--submit` and its options. Verbs continue where they
were interrupted, so a job that meets its time limit, or makes room for another, queues the same
command again and goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submitit import Job

SYSTEMS = ("slurm", "local")
_FAILURES = (1, 2, 130)  # statuses of the command line
_REQUEUES = 1000  # a search or a training may need many turns; each goes on where the last was


@dataclass(frozen=True)
class Command:
    """What a job does: the command line with these arguments, in the job's own process."""

    arguments: tuple[str, ...]

    def __call__(self) -> None:
        """Raises RuntimeError if the command fails, so that the job counts as failed."""
        from firstspike.cli import main

        try:
            main(list(self.arguments))
        except SystemExit as end:
            if end.code in _FAILURES:
                said = f"`firstspike {' '.join(self.arguments)}` ended with status {end.code}"
                raise RuntimeError(
                    f"{said}; its log says why. Mend what it says and submit it again."
                ) from None
            if end.code:  # submitit has queued the job again and ends this turn of it
                raise

    def checkpoint(self) -> Any:
        """What is queued when the job has to stop: the same command."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    commands: Sequence[Sequence[str]],
    system: str,
    folder: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
) -> list[Job[None]]:
    """Queue `firstspike ARGUMENTS` as a job for each of the commands.

    Args:
        commands: arguments of the command line, verb first, of each job.
        system: "slurm", or "local" for processes of this machine.
        folder: where submitit keeps scripts and logs.
        options: of the batch system, by the names of submitit: `timeout_min`, `cpus_per_task`,
            `gpus_per_node`, `mem_gb`, `slurm_partition`, ...

    Raises:
        ModuleNotFoundError: if submitit is missing; names the command that installs it.
        ValueError: for unknown systems and options, or a system that is not there.

    >>> Command(("info",)).arguments
    ('info',)
    """
    if system not in SYSTEMS:
        raise ValueError(f"`submit` must be one of {', '.join(SYSTEMS)}, got {system!r}.")
    try:
        from submitit import AutoExecutor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`submitit` must be installed for jobs. Run pip install 'firstspike[cluster]'."
        ) from error
    limit = {f"{system}_max_num_timeout": _REQUEUES}
    try:
        executor = AutoExecutor(folder=Path(folder), cluster=system, **limit)
        executor.update_parameters(name=f"firstspike-{commands[0][0]}", **(options or {}))
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"`submit` must name a batch system of this machine with options that it has, got "
            f"{system!r} with {dict(options or {})}: {error}"
        ) from error
    return [executor.submit(Command(tuple(arguments))) for arguments in commands]


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as options; numbers are numbers.

    >>> read_options(["timeout_min=60", "slurm_partition=gpu"])
    {'timeout_min': 60, 'slurm_partition': 'gpu'}
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(
                f"`--job-option` must be NAME=VALUE with a name of submitit's, got {text!r}. Write "
                "for instance timeout_min=60 or slurm_partition=gpu."
            )
        options[name] = int(value) if value.isdigit() else value
    return options
