"""A one-node SLURM, started for the test: a job runs, is queued again, and goes on where it was."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstspike.cluster import submit

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "srun")
EPOCHS = 3


def missing() -> str | None:
    """Why there can be no SLURM here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    return None


def wait_for(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} after {seconds:g} s"
        time.sleep(0.5)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Munge, the controller and one node; commands find them through SLURM_CONF."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    host = socket.gethostname().split(".")[0]
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    key, munge = tmp_path / "munge.key", tmp_path / "munge"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp") and parent.parts[:2] == Path(tmp_path).parts[:2]:
            parent.chmod(0o755)  # munge wants its socket where others may look
    for name in ("state", "spool", "log"):
        (tmp_path / name).mkdir()
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
StateSaveLocation={tmp_path}/state
SlurmdSpoolDir={tmp_path}/spool
SlurmctldLogFile={tmp_path}/log/slurmctld
SlurmdLogFile={tmp_path}/log/slurmd
SlurmctldPidFile={tmp_path}/slurmctld.pid
SlurmdPidFile={tmp_path}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
    )
    (tmp_path / "cgroup.conf").write_text("CgroupPlugin=autodetect\nIgnoreSystemd=yes\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    daemons = []

    def start(*command: str) -> None:
        log = (tmp_path / "log" / f"{command[0]}.out").open("w")
        daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        log.close()

    start(
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}/socket"),
        *(f"--pid-file={munge}/pid", f"--log-file={tmp_path}/log/munged"),
        *(f"--seed-file={munge}/seed",),
    )
    try:
        wait_for((munge / "socket").exists, 60, "munge socket")
        start("slurmctld", "-D", "-c", "-f", str(conf))
        start("slurmd", "-D", "-c", "-f", str(conf))

        def idle() -> bool:
            said = subprocess.run(
                ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False
            )
            return said.stdout.strip() in ("idle", "mix", "alloc")

        wait_for(idle, 180, "idle node")
        yield tmp_path
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True)

        def empty() -> bool:
            said = subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True)
            return not said.stdout.strip()

        wait_for(empty, 60, "empty queue")  # steps of jobs outlive the daemons otherwise
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.mark.slow
def test_a_training_that_is_queued_again_goes_on_exactly(slurm: Path) -> None:
    command = [
        *("train", "--model=digits_cnn", "--data=digits", f"--epochs={EPOCHS}", "--threads=1"),
        f"--json={slurm / 'result.json'}",
    ]
    metrics = slurm / "run" / "metrics.jsonl"
    (job,) = submit(
        [[*command, f"--out={slurm / 'run'}"]],
        "slurm",
        slurm / "jobs",
        options={"timeout_min": 60, "cpus_per_task": 1},
    )
    wait_for(metrics.is_file, 900, "first epoch")
    subprocess.run(["scancel", "--signal=USR2", "--full", job.job_id], check=True)
    wait_for((slurm / "result.json").is_file, 1200, "end of the second turn")
    log = job.paths.stdout.read_text() + job.paths.stderr.read_text()
    assert log.count("Starting with JobEnvironment") == 2 and "Caught signal SIGUSR2" in log, log

    from firstspike.cli import main

    with pytest.raises(SystemExit) as ended:
        main([*command, f"--out={slurm / 'direct'}"])
    assert not ended.value.code
    keep = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
    found, direct = (
        [{k: json.loads(line)[k] for k in keep} for line in file.read_text().splitlines()]
        for file in (metrics, slurm / "direct" / "metrics.jsonl")
    )
    assert found == direct and len(found) == EPOCHS


@pytest.mark.slow
def test_two_jobs_share_a_search(slurm: Path) -> None:
    run = slurm / "run"
    subprocess.run(
        [
            *(sys.executable, "-m", "firstspike", "train", "--model=digits_cnn", "--data=digits"),
            *("--epochs=1", "--threads=1", f"--out={run}"),
        ],
        check=True,
    )
    command = [
        *("tune", str(run), "--budget=accuracy_drop <= 0.5", "--trials=6", "--sampler=random"),
        *("--no-test", "--threads=1", f"--json={slurm / 'tuned.json'}"),
    ]
    jobs = submit(
        [command, [*command, "--worker"]], "slurm", slurm / "jobs", options={"timeout_min": 60}
    )
    for job in jobs:
        job.result()
    tuned = json.loads((slurm / "tuned.json").read_text())
    assert [trial["index"] for trial in tuned["trials"]] == list(range(6))
    assert (slurm / "run" / "tune" / "network.safetensors").is_file()
