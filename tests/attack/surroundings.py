"""Full disks, folders nobody may write to, two processes, threads, and memory."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from kills import contents, in_process, train
from torch import nn

import firstspike as fs
from firstspike.engines import EventDriven

_NOBODY = 65534


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a forked child, whose limits and user may change."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = work()
        except BaseException as error:
            text = f"BAD: {error!r}"
        os.write(write, text.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else f"BAD: the child ended with {status}"


def _network(width: int, seed: int = 0) -> tuple[fs.SpikingNetwork, torch.Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
    x = torch.rand(20, 8)
    return fs.convert(model, fs.TTFS(8), calibration=x), x


def small_disk(seed: int, folder: Path) -> str:
    """No file may grow beyond some bytes: the earlier file stays, the message says so."""
    r = random.Random(seed)
    path = folder / "n.safetensors"
    small, _ = _network(4)
    small.save(path)
    before = path.read_bytes()
    large, _ = _network(400, seed)

    def work() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = r.randrange(100, 12_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            large.save(path)
        except OSError as error:
            said = "could not write" in str(error) and "earlier file is intact" in str(error)
            return "ok: refused" if said else f"BAD: {error!r}"
        return "BAD: written beyond the limit"

    outcome = in_child(work)
    intact = path.read_bytes() == before and os.listdir(folder) == [path.name]
    return outcome if intact else f"BAD: seed {seed}: the earlier file is gone"


def small_disk_training(seed: int, folder: Path) -> str:
    """A training whose disk fills says so, and ends like any other once there is room."""
    r = random.Random(seed)
    whole = in_process(train)

    def work() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = r.randrange(100, 20_000)  # the checkpoint has about 14,000 bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            train(folder / "run")
        except OSError as error:
            return "ok: refused" if "could not write" in str(error) else f"BAD: {error!r}"
        return "ok: there was room"

    outcome = in_child(work)
    train(folder / "run")
    if contents(folder / "run") != whole.expected:
        return f"BAD: seed {seed}: the run ended otherwise"
    return outcome


def read_only(seed: int, folder: Path) -> str:
    """As an ordinary user, a folder without write permission is refused by name."""
    if os.getuid() != 0:
        return "ok: not root"
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 1:
            os.chmod(parent, 0o755)
    os.chmod(folder, 0o555)
    network, _ = _network(4)

    def work() -> str:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
        said = []
        for action in (lambda: network.save(folder / "n.safetensors"), lambda: train(folder)):
            try:
                action()
                return "BAD: written into a read-only folder"
            except OSError as error:
                said.append(str(folder) in str(error))
        return "ok: refused" if all(said) else "BAD: no folder in the message"

    return in_child(work)


def two_processes(seed: int, folder: Path) -> str:
    """Two trainings in one folder: one trains, the other is refused, the run is right."""
    outcomes = []

    def once() -> str:
        try:
            train(folder / "run")
        except ValueError as error:
            return "refused" if "another process is training" in str(error) else f"BAD: {error}"
        return "trained"

    def start() -> None:
        outcomes.append(in_child(once))

    workers = [threading.Thread(target=start) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    good = "trained" in outcomes and not any("BAD" in text for text in outcomes)
    if good and contents(folder / "run") != in_process(train).expected:
        return f"BAD: seed {seed}: the run ended otherwise"
    return f"ok: {'/'.join(sorted(set(outcomes)))}" if good else f"BAD: {outcomes}"


def threads(seed: int, folder: Path) -> str:
    """Four threads serve, of which some share a prepared engine, while one converts."""
    network, x = _network(16)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    expected, prepared = network(x), EventDriven(network)
    times = prepared.run(x).spike_times
    bad: list[str] = []
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                if not torch.equal(network(x), expected):
                    bad.append("another answer")
                found = prepared.run(x).spike_times
                if not all(torch.equal(found[name], times[name]) for name in times):
                    bad.append("other spike times")
                model(x)
            except Exception as error:
                bad.append(repr(error)[:100])
                return

    workers = [threading.Thread(target=serve) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(10):
            fs.convert(model, fs.TTFS(8), calibration=x)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    return "ok: right" if not bad else f"BAD: {len(bad)} of {set(bad)}"


def memory(seed: int, folder: Path) -> str:
    """1,000 calls leave the resident memory where it was."""
    network, x = _network(64)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def calls(count: int) -> None:
        for _ in range(count):
            network(x)
            fs.simulate(network, x, "event")
            fs.simulate(network, x, "clock")

    calls(100)
    before = resident()
    calls(1000)
    grown = (resident() - before) / 2**20
    return "ok: flat" if grown < 4 else f"BAD: {grown:.1f} MiB more"
