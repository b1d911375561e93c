"""Kernels for GPUs give what the operations of torch beside them give.

Without a GPU they run in Triton's interpreter and are compiled ahead of time.
"""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Exponential, Linear
from firstspike.compiled import on_gpu
from firstspike.conversion import convert
from firstspike.engines import simulate
from firstspike.engines.pooling import SpikePool
from firstspike.networks.ops import MaxPool
from firstspike.neurons.lookup import LookUp
from firstspike.neurons.soft_reset import burst_, soft_reset_

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports it
pytest.importorskip("triton", reason="Triton is not installed: pip install 'firstspike[triton]'")


@pytest.fixture
def both(monkeypatch):
    """What a function gives without and with kernels; the second time it must call `wanted`."""
    from firstspike.compiled import triton_kernels

    launched = []
    for name in ("look_up", "fire_and_reset", "spike_pool", "walk"):
        kernel = getattr(triton_kernels, name)

        def watched(*arguments, name=name, kernel=kernel, **options):
            launched.append(name)
            return kernel(*arguments, **options)

        monkeypatch.setattr(triton_kernels, name, watched)

    def run(wanted, function):
        plain = function()
        with monkeypatch.context() as switched:
            switched.setattr(on_gpu, "KIND", DEVICE)
            switched.setattr(on_gpu, "has_triton", lambda: True)
            by_kernel = function()
        assert wanted in launched
        launched.clear()
        return plain, by_kernel

    return run


def assert_equal(results):
    for one, other in zip(*(r if isinstance(r, list) else [r] for r in results), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def random(*shape, dtype=torch.float32, seed=0, low=-0.5, high=1.2):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (values * (high - low) + low).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 16, 80, 255])
def test_look_up(both, dtype, steps):
    thresholds = torch.linspace(1, 0.01, steps, dtype=dtype, device=DEVICE)
    u = random(3, 5, 7, 11, dtype=dtype)
    u[0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    u[1].view(-1)[: min(steps, 300)] = thresholds[:300] * 2  # on the border
    for layout in (u, u.to(memory_format=torch.channels_last), u[:, :, ::2]):
        for scale in (torch.tensor(2.0, dtype=dtype), random(5, 1, 1, dtype=dtype, low=0.5)):
            table = LookUp(scale.to(DEVICE), thresholds, thresholds * 3, -1.0)
            assert_equal(both("look_up", lambda t=table, x=layout: t(x)))
            assert_equal(both("look_up", lambda t=table, x=layout: t(y := x.clone(), y)))


@pytest.mark.parametrize("currents_type", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "part"), [((4, 3, 10), False), ((5, 2, 3, 4, 6), False), ((5, 2, 3, 4, 6), True)]
)
@pytest.mark.parametrize("gained", [False, True])
def test_soft_reset_and_burst(both, currents_type, shape, part, gained):
    high = torch.float64 if currents_type == torch.float64 else torch.float32
    threshold = random(*shape[2:], dtype=high, low=1, high=4).floor() / 8  # exact in bfloat16
    currents = random(*shape, dtype=currents_type)
    if part:  # samples that lie apart, and their states too
        currents = random(5, 2, 7, 4, 6, dtype=currents_type)[:, :, :3]
    elif len(shape) == 5:
        currents = currents.movedim(2, -1).contiguous().movedim(-1, 2)
    bias = torch.empty_strided(shape[1:], currents.stride()[1:], dtype=high, device=DEVICE)
    bias.copy_(random(*shape[1:], dtype=high, low=-0.1, high=0.1))

    def run():
        signal = torch.empty_strided(shape, currents.stride(), dtype=currents_type, device=DEVICE)
        signal.copy_(currents)
        state = [
            torch.empty_strided(bias.shape, bias.stride(), dtype=high, device=DEVICE)
            for _ in range(3)
        ]
        for x, value in zip(state, (0.0, 0.0, 1.0)):
            x.fill_(value)
        if gained:
            burst_(signal, *state, bias, threshold, threshold * 8, 2.0)
        else:
            weights = 0.5 ** torch.arange(shape[0], dtype=high)
            soft_reset_(signal, *state[:2], bias, threshold, weights, weights.flip(0) * 0.3)
        return [signal, *state]

    assert_equal(both("fire_and_reset", run))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 1)},
        {"kernel_size": 2, "ceil_mode": True},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_max_pools_over_time(both, options, dtype):
    pool = MaxPool(dims=2, **options)
    values = random(6, 2, 3, 7, 9, dtype=dtype, low=-4, high=4).clamp(min=0).floor() / 8

    def run():
        over_time = SpikePool(count=True)
        out = torch.cat([over_time(pool, values[:4]), over_time(pool, values[4:])])
        return [out, over_time.largest, over_time.count]

    assert_equal(both("spike_pool", run))


def late(network, x):
    network, x = copy.deepcopy(network).to(DEVICE), x.to(DEVICE)
    record = simulate(network, x, "early_firing", potentials=True)
    return [record.logits, *record.spike_times.values(), *record.potentials.values()]


@pytest.mark.parametrize("name", ["fire_and_reset", "spike_pool"])
def test_the_long_axis_of_a_grid_is_its_first(both, name, monkeypatch):
    """CUDA takes 2^31 - 1 blocks along the first axis and 65,535 along the others."""
    from firstspike.compiled import triton_kernels

    grids = []
    monkeypatch.setattr(triton_kernels, "_launch", lambda kernel, grid, *a, **o: grids.append(grid))
    many = 70_000
    if name == "spike_pool":
        values = torch.zeros(1, many, 2, 2)
        triton_kernels.spike_pool(
            values, values[0], values[0, :, :1, :1], None, ((2, 2), (2, 2), (0, 0), (1, 1))
        )
    else:
        x = torch.zeros(1, many, 1)
        one = x[0, 0]
        triton_kernels.fire_and_reset(x, x[0], x[0], x[0], one, rhythm=(one, one))
    assert grids == [(many, 1)]


class Branches(nn.Module):
    """Paths of several lengths, a pool over spikes, and a hidden layer without positions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(12, 70), nn.ReLU(), nn.Linear(70, 4))

    def forward(self, x):
        x = self.first(x).relu()
        x = (x + self.second(x)).relu()
        return self.head(nn.functional.max_pool2d(x, 2))


@pytest.mark.parametrize(("kernel", "offset"), [(Linear(), 1), (Exponential(), 4), (Linear(), 6)])
def test_late_spikes(both, kernel, offset):
    torch.manual_seed(0)
    model, x = Branches().double(), torch.rand(2, 2, 4, 4, dtype=torch.float64)
    network = convert(model, TTFS(8, kernel, offset=offset), calibration=x)
    plain, by_kernel = both("walk", lambda: late(network, x))
    for one, other in zip(plain, by_kernel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_gpu(capability):
    """In another process, whose Triton compiles."""
    code = f"""
import os, sys
os.environ.pop("TRITON_INTERPRET", None)
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from firstspike.compiled import triton_kernels as k

F, I, L, C = "*fp32", "i32", "*i32", "constexpr"
signatures = [
    (k.look_up_kernel, [F] * 5 + [I] * 2, dict(POWERS=5, BLOCK=1024)),
    (k.fire_and_reset_kernel, ["*bf16"] + [F] * 9 + [I] * 6, dict(GAINED=True, BLOCK=1024)),
    (k.fire_and_reset_kernel, ["*bf16"] + [F] * 9 + [I] * 6, dict(GAINED=False, BLOCK=1024)),
    (
        k.spike_pool_kernel,
        ["*bf16"] + ["*fp64"] * 4 + ["*bf16"] + [I] * 15, dict(COUNTING=True, WINDOW=4, BLOCK=128)
    ),
    (
        k.walk_kernel,
        [F] * 3 + [L] * 2 + ["*i64"] * 5 + [F] * 3 + [I] * 7, dict(WIDTH=64)
    ),
]
for kernel, kinds, constants in signatures:
    kinds = dict(zip(kernel.arg_names, kinds + [C] * len(constants), strict=True))
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", {capability}, 32))
    assert made.asm["cubin"]
    print(kernel.fn.__name__ if hasattr(kernel, "fn") else kernel)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 5
