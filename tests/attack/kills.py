"""SIGKILL at random moments: what was finished is kept, and going on gives the same end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from small_task import make_model, make_set
from torch import nn

import firstspike as fs
from firstspike._reading import read_json, read_json_lines
from firstspike._tensors import load_tensors
from firstspike.codes import Linear
from firstspike.training import TrainConfig, fit

CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=0.02)
TIMES = ("seconds", "ann_seconds", "samples_per_second", "environment", "story")
LABELS = ["largest activation T = 2", "percentile search T = 2"]
MOST = 6  # kills of one piece of work before it may end
_ENOUGH = 500.0  # seconds for work that nobody disturbs


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


def contents(folder: Path) -> dict[str, object]:
    """What all files in a folder say, without times: reading them all shows that they are whole."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            tensors, content = load_tensors(path)
            numbers = {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}
            found[name] = numbers, without_times(content)
        elif path.suffix == ".json":
            found[name] = without_times(read_json(path))
        elif path.suffix == ".jsonl":
            found[name] = without_times(read_json_lines(path))
    return found


def without_times(content: object) -> object:
    if isinstance(content, dict):
        return {k: without_times(v) for k, v in content.items() if k not in TIMES}
    return [without_times(v) for v in content] if isinstance(content, list) else content


class Work:
    """Work that can be done again in the same folder, and what it leaves when nobody disturbs it.

    Args:
        do: does the work in a folder.
        kill: does it and kills it after so many seconds; whether it was killed.
        most: kills before it may end.
    """

    def __init__(
        self, do: Callable[[Path], None], kill: Callable[[Path, float], bool], most: int = MOST
    ) -> None:
        self.do, self.kill, self.most = do, kill, most
        with tempfile.TemporaryDirectory() as text:
            begin = time.monotonic()
            do(Path(text) / "whole")
            self.seconds = time.monotonic() - begin
            self.expected = contents(Path(text) / "whole")

    def attack(self, seed: int, folder: Path) -> str:
        """Kill the work some times, let it end, and compare."""
        r, kills = random.Random(seed), 0
        while kills < self.most and self.kill(folder / "work", r.uniform(0, 1.2 * self.seconds)):
            kills += 1
            contents(folder)
        self.do(folder / "work")
        found = contents(folder / "work")
        if found == self.expected:
            return f"ok: {kills} kills"
        parted = sorted(n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n))
        return f"BAD: seed {seed}: after {kills} kills {parted} differ"


def train(folder: Path) -> None:
    torch.manual_seed(0)
    sets = make_set(90, 0), make_set(31, 5)
    fit(make_model(), *sets, CONFIG, run_dir=folder, checkpoint_seconds=0.0, progress=False)


def compare(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    codes = [fs.TTFS(4), fs.TTFS(8, Linear()), fs.Rate(8), fs.Burst(8), fs.Phase(8)]
    images = make_set(60, 0).images
    results = fs.compare(model, codes, make_set(60, 3), calibration=images, store=folder)
    lines = [result.model_dump_json() for result in results]
    (folder / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")


def reproduce(folder: Path) -> None:
    from firstspike.reproduce import reproduce

    reproduce("few-step-fig2", scale="small", ann=_trained(), only=LABELS, out=folder)


@functools.lru_cache
def in_process(do: Callable[[Path], None]) -> Work:
    """Work of this process, done once before its time is taken."""
    with tempfile.TemporaryDirectory() as text:
        do(Path(text) / "warm")
    return Work(do, lambda folder, after: killed(lambda: do(folder), after))


def train_kill(seed: int, folder: Path) -> str:
    """Training: weights, metrics and checkpoint are those of a run that nobody disturbed."""
    return in_process(train).attack(seed, folder)


def compare_kill(seed: int, folder: Path) -> str:
    """`compare` with a store: finished results are kept, the end is the same."""
    return in_process(compare).attack(seed, folder)


def reproduce_kill(seed: int, folder: Path) -> str:
    """`reproduce` at the smallest scale: finished parts are kept, the end is the same."""
    return in_process(reproduce).attack(seed, folder)


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


COMMANDS = {
    "train": "train --model digits_cnn --data digits --epochs 1 --out .",
    "convert": "convert run --code TTFS(4) --calibration 100 --check 50",
    "compare": "compare --model run --code FewStep(3) --code TTFS(4) --samples 20",
    "reproduce": f"reproduce few-step-fig2 --ann run --only '{','.join(LABELS)}' --out .",
    "tune": "tune run --budget 'accuracy_drop <= 1' --trials 4 --samples 40 --calibration 50 "
    "--sampler random --no-test",
}


def _command(verb: str, folder: Path) -> None:
    """Call the command line as a process of its own does, in a process that has the imports."""
    from firstspike.cli import main

    os.chdir(folder)
    sys.argv = ["firstspike", *shlex.split(COMMANDS[verb])]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise


@functools.lru_cache
def _trained() -> Path:
    """A run that the command line trained; it stays until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    atexit.register(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    assert not killed(lambda: _command("train", folder), _ENOUGH)
    return folder


@functools.lru_cache
def command(verb: str) -> Work:
    """A verb of the command line; forked even when it may end, for it changes its process."""

    def kill(folder: Path, after: float) -> bool:
        if not folder.exists():
            folder.mkdir(parents=True)
            if verb != "train":
                shutil.copytree(_trained(), folder / "run")
        return killed(lambda: _command(verb, folder), after)

    def do(folder: Path) -> None:
        assert not kill(folder, _ENOUGH), "the command hangs"

    # a search gives a trial up that has killed its worker three times
    return Work(do, kill, most=2 if verb == "tune" else MOST)


def command_kill(seed: int, folder: Path) -> str:
    """A verb of the command line: files stay whole, and called again it ends the same."""
    return command(list(COMMANDS)[seed % len(COMMANDS)]).attack(seed, folder)


def warm() -> None:
    """Do all work once, so that children inherit what it leaves."""
    for do in (train, compare, reproduce):
        in_process(do)
    for verb in COMMANDS:
        command(verb)
