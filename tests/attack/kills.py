"""SIGKILL at random moments: what was finished is kept, and going on gives the same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from small_task import make_model, make_set
from torch import nn

import firstspike as fs
from firstspike._reading import read_json
from firstspike._tensors import load_tensors
from firstspike.codes import Linear
from firstspike.training import TrainConfig, fit

CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=0.02)
TIMES = ("seconds", "samples_per_second", "environment")


def killed(work: Callable[[], object], after: float) -> bool:
    """Run `work` in a forked child and kill it after so many seconds; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    end = time.monotonic() + after
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"the child failed with {status}"
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def whole_files(folder: Path) -> None:
    """Every file in a folder can be read."""
    for path in folder.rglob("*"):
        if path.name.endswith(".tmp"):
            continue
        if path.suffix == ".safetensors":
            load_tensors(path)
        elif path.suffix == ".json":
            read_json(path)


def without_times(content: object) -> object:
    if isinstance(content, dict):
        return {k: without_times(v) for k, v in content.items() if k not in TIMES}
    return [without_times(v) for v in content] if isinstance(content, list) else content


def _train(folder: Path) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, epochs=3)
    sets = make_set(90, 0), make_set(31, 5)
    fit(make_model(), *sets, config, run_dir=folder, checkpoint_seconds=0.0, progress=False)


def _outcome(folder: Path) -> object:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    model = (folder / "model.safetensors").read_bytes()
    last, _ = load_tensors(folder / "last.safetensors")
    return without_times(lines), model, {n: t.numpy().tobytes() for n, t in last.items()}


def _repeated(work: Callable[[], None], span: float, r: random.Random, most: int) -> int:
    """Kill `work` at most so many times, then let it end; the kills."""
    kills = 0
    while kills < most and killed(work, r.uniform(0, span)):
        kills += 1
    work()
    return kills


def train_kill(seed: int, folder: Path) -> str:
    """Training: weights, metrics and checkpoint are those of a run that nobody disturbed."""
    r = random.Random(seed)
    begin = time.monotonic()
    _train(folder / "whole")
    span = time.monotonic() - begin
    kills = _repeated(lambda: _train(folder / "run"), span, r, 6)
    same = _outcome(folder / "run") == _outcome(folder / "whole")
    return f"ok: {kills} kills" if same else f"BAD: seed {seed}: the resumed run ended otherwise"


def convert_kill(seed: int, folder: Path) -> str:
    """Saving: the file is the old network or the new one."""
    r = random.Random(seed)
    x = torch.rand(20, 8)
    made = []
    for number in range(2):
        torch.manual_seed(number)
        model = nn.Sequential(nn.Linear(8, 500), nn.ReLU(), nn.Linear(500, 3))
        made.append(fs.convert(model, fs.TTFS(8), calibration=x))
    path = folder / "n.safetensors"
    made[0].save(path)

    def work() -> None:
        for number in range(200):
            made[number % 2].save(path)

    kills = sum(killed(work, r.uniform(0, 0.3)) for _ in range(4))
    with torch.no_grad():
        answer = fs.SpikingNetwork.load(path)(x)
        right = any(torch.equal(answer, network(x)) for network in made)
    return f"ok: {kills} kills" if right else f"BAD: seed {seed}: another network"


def compare_kill(seed: int, folder: Path) -> str:
    """`compare` with a store: finished results are kept, the end is the same."""
    r = random.Random(seed)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    codes = [fs.TTFS(4), fs.TTFS(8, Linear()), fs.Rate(8), fs.Burst(8), fs.Phase(8)]

    def work(store: Path) -> list[object]:
        found = fs.compare(
            model, codes, make_set(60, 3), calibration=make_set(60, 0).images, store=store
        )
        return [without_times(result.model_dump(mode="json")) for result in found]

    begin = time.monotonic()
    expected = work(folder / "whole")
    span = time.monotonic() - begin
    kills = 0
    while kills < 5 and killed(lambda: work(folder / "store"), r.uniform(0, span)):
        kills += 1
        whole_files(folder / "store") if (folder / "store").exists() else None
    same = work(folder / "store") == expected
    return f"ok: {kills} kills" if same else f"BAD: seed {seed}: other results"


def reproduce_kill(seed: int, folder: Path) -> str:
    """`reproduce` at the smallest scale: after every kill all files in its folder are whole."""
    from firstspike.reproduce import reproduce

    r = random.Random(seed)

    def work() -> None:
        reproduce("few-step-fig2", scale="small", out=folder / "work")

    kills = 0
    for _ in range(5):
        kills += killed(work, r.uniform(1, 15))
        whole_files(folder)
    return f"ok: {kills} kills"


def command_kill(seed: int, folder: Path) -> str:
    """`firstspike train`, `convert` and `compare`: files stay whole and the command goes on."""
    r = random.Random(seed)
    run, out = folder / "run", folder / "compare"
    verbs = (
        ("train", "--model", "digits_cnn", "--data", "digits", "--epochs", "1", "--out", str(run)),
        ("convert", str(run), "--window", "4", "--calibration", "100", "--check", "50"),
        *(("compare", "--model", str(run), "--codes", "few-step", "--samples", "20", "--out"),),
    )
    kills = 0
    for verb in verbs:
        arguments = (*verb, str(out)) if verb[0] == "compare" else verb
        command = [sys.executable, "-c", "from firstspike.cli import main; main()", *arguments]
        for attempt in range(3):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                _, errors = process.communicate(timeout=r.uniform(1, 25) if attempt < 2 else 500)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                whole_files(folder)
                continue
            if process.returncode:
                return f"BAD: seed {seed}: {verb[0]} ended with {errors.decode()[-300:]}"
            break
    whole_files(folder)
    return f"ok: {kills} kills"
