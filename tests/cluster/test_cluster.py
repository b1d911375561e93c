"""Verbs as jobs: the command that is queued, what it leaves, and how it is queued again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firstspike import cluster
from firstspike.cli.app import app
from firstspike.cluster import Command, read_options, submit


def typed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are queued for what is typed."""
    queued: list[list[str]] = []

    def pretend(commands: list[list[str]], *rest: object, **options: object) -> list:
        queued.extend(commands)
        return []

    monkeypatch.setattr(cluster, "submit", pretend)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return queued


def test_the_queued_command_is_the_typed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(
        *("tune", "runs/a b", "--budget", "accuracy_drop <= 0.01", "--budget=steps <= 9"),
        *("--no-test", "--submit", "slurm", "--jobs", "2", "--job-option", "timeout_min=5"),
        *("--json", "x.json", "--trials", "7"),
        monkeypatch=monkeypatch,
    ) == [
        base := [
            *("tune", "runs/a b", "--budget=accuracy_drop <= 0.01", "--budget=steps <= 9"),
            *("--trials=7", "--no-test", "--json=x.json"),
        ],
        [*base, "--worker"],
    ]
    assert typed(
        *("train", "--recipe", "r.yaml", "--restart", "--submit", "local"), monkeypatch=monkeypatch
    ) == [["train", "--recipe=r.yaml", "--restart"]]
    for verb in ("compare", "reproduce"):
        assert (
            "--submit" in CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
        )
    with pytest.raises(ValueError, match="`--jobs` must be 1 for train"):
        typed("train", "--submit", "local", "--jobs", "2", monkeypatch=monkeypatch)


def test_options_are_names_and_values() -> None:
    assert read_options(["timeout_min=5", "slurm_partition=a=b"]) == {
        "timeout_min": 5,
        "slurm_partition": "a=b",
    }
    with pytest.raises(ValueError, match="`--job-option` must be NAME=VALUE"):
        read_options(["timeout"])


def test_a_job_is_queued_again_with_the_same_command() -> None:
    command = Command(("info",))
    again = command.checkpoint()
    assert again.function == command and not again.args


def test_a_command_that_fails_fails_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=r"`firstspike tune nowhere .*` ended with status 2"):
        Command(("tune", "nowhere", "--budget=accuracy_drop <= 0.1"))()
    assert "there is no run folder" in capsys.readouterr().err


def test_what_no_system_takes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`submit` must be one of slurm, local"):
        submit([["info"]], "pbs", tmp_path)
    with pytest.raises(ValueError, match=r"`submit` must name a batch system .* with options"):
        submit([["info"]], "local", tmp_path, options={"walltime": 3})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="`submit` must name a batch system"):
        submit([["info"]], "slurm", tmp_path)
    import sys

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'firstspike\[cluster\]'"):
        submit([["info"]], "local", tmp_path)


@pytest.mark.slow
def test_the_local_executor_runs_the_command(tmp_path: Path) -> None:
    arguments = [
        *("train", "--model=digits_cnn", "--data=digits", "--epochs=1", "--threads=1"),
        *(f"--out={tmp_path / 'run'}", f"--json={tmp_path / 'result.json'}"),
    ]
    (job,) = submit([arguments], "local", tmp_path / "jobs", options={"timeout_min": 20})
    job.result()
    assert json.loads((tmp_path / "result.json").read_text())["model"] == "digits_cnn"
    assert (tmp_path / "run" / "model.safetensors").is_file()
    (failing,) = submit([["report", str(tmp_path / "none")]], "local", tmp_path / "jobs")
    with pytest.raises(Exception, match="ended with status 2"):
        failing.result()
    assert os.path.exists(failing.paths.stderr)
