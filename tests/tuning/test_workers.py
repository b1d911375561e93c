"""Several workers on one storage: nothing lost, nothing double, the front of a single worker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker

from firstspike.tuning.study import Search, close_storage, open_storage

TRIALS = 24


def server_programs() -> Path | None:
    """Folder of PostgreSQL's server, as distributions install it, or of one on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def postgresql() -> Iterator[str]:
    """URL of a fresh database of a server started for the test; root runs it as `postgres`."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="firstspike-pg-"))
    data, port = folder / "data", free_port()
    if user is not None:
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(programs / program), *arguments],
            check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip

    run("initdb", "-D", str(data), "-U", "tester", "--auth=trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses=127.0.0.1 -p {port} -c fsync=off"
    start = ["-D", str(data), "-l", str(folder / "log"), "-w", "-t", "120"]
    run("pg_ctl", "start", *start, "-o", options)
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "-D", str(data), "-m", "immediate", "-w")
        shutil.rmtree(folder)


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return str(tmp_path / "study.journal")
    return request.getfixturevalue("postgresql")


def start(storage: str, *more: str) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    paths = [str(here.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(here / "worker.py"), storage, str(TRIALS), *more],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


@pytest.mark.slow
def test_a_killed_worker_loses_its_trial_alone(storage: str) -> None:
    import optuna
    from optuna.trial import TrialState

    victim = start(storage, "hang")
    assert victim.stdout is not None
    lines = []
    while "hanging" not in (line := victim.stdout.readline()):
        assert line, "the victim ended"
        lines.append(line)
    workers = [start(storage) for _ in range(2)]
    while "did" not in workers[0].stdout.readline():  # type: ignore[union-attr]
        assert workers[0].poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    for other in workers:
        lines += other.communicate(timeout=600)[0].splitlines()
        assert other.returncode == 0

    many = worker.search(storage, TRIALS)  # all is done: this only reads
    one = worker.search(None, TRIALS)
    assert [done.index for done in many.trials] == list(range(TRIALS))
    assert [d.setting for d in many.trials] == [d.setting for d in one.trials]
    assert [d.outcome.measures for d in many.trials] == [d.outcome.measures for d in one.trials]
    assert [d.index for d in many.front] == [d.index for d in one.front]
    assert many.require().index == one.require().index
    opened = open_storage(storage)
    trials = optuna.load_study(study_name="tune", storage=opened).get_trials()
    close_storage(opened)
    complete = [t.user_attrs["index"] for t in trials if t.state == TrialState.COMPLETE]
    assert sorted(complete) == list(range(TRIALS)), "each trial was finished once"
    failed = [t for t in trials if t.state == TrialState.FAIL and not t.user_attrs.get("surplus")]
    assert len(failed) == 1, "one trial died with its worker"
    assert failed[0].user_attrs["index"] in complete


def test_a_worker_elsewhere_counts_as_dead_when_its_beat_stands_still(tmp_path: Path) -> None:
    search = Search(
        tmp_path / "j", "s", {}, lambda draws: {"x": draws.suggest_categorical("x", [1])},
        patience=0.2,
    )  # fmt: skip
    search._fill(1)
    trial = search._take()
    assert trial is not None
    trial.set_user_attr("worker", ["elsewhere", 1])
    search._bury()
    assert search.trials()[0].number == trial.number
    time.sleep(0.15)
    trial.set_user_attr("beat", 1)
    search._bury()
    time.sleep(0.15)
    search._bury()
    assert search.trials(), "it has shown signs of life"
    time.sleep(0.25)
    search._bury()
    assert not search.trials()
    search._fill(1)
    assert [t.user_attrs["index"] for t in search.study.get_trials()] == [0, 0]
