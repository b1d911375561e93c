"""Without numba every code gives the same results, and one line says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, warnings
if sys.argv[1] == "without":
    sys.modules["numba"] = None  # makes `import numba` fail
import torch
from torch import nn
import firstspike as fs

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
    nn.Flatten(), nn.Linear(16, 3),
)
x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
codes = [
    fs.TTFS(8), fs.TTFS(8, fs.kernels.Linear(), offset=4), fs.Rate(8), fs.Phase(16), fs.Burst(16),
    fs.Reverse(8), fs.TemporalSwitch(8), fs.FewStep(2), fs.ReLPSP(), fs.ReLPSP(8),
]
found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for code in codes:
        network = fs.convert(model, code, calibration=x)
        result = fs.evaluate(network, [(x, torch.arange(20) % 3)])
        found[str(code)] = [result.spikes_per_sample, *network(x).flatten().tolist()]
    try:
        fs.simulate(fs.convert(model, fs.TTFS(8), calibration=x), x, "event")
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
said = [str(w.message) for w in caught if "numba cannot be imported" in str(w.message)]
print(json.dumps({"found": found, "said": said, "refused": refused}))
"""


def outcome(how: str) -> dict:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_code_gives_the_same_without_numba() -> None:
    there, missing = outcome("with"), outcome("without")
    assert there["said"] == [] and there["refused"] == ""
    assert "got 'event': numba is not installed; `pip install numba`" in missing["refused"]
    (line,) = missing["said"]
    assert "pip install numba" in line and "\n" not in line
    assert list(there["found"]) == list(missing["found"])
    for code, values in there["found"].items():
        assert missing["found"][code] == pytest.approx(values, abs=1e-5), code
