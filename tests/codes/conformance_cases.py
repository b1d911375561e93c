"""What every code hands to the conformance suite: a constructor and a slow reference in Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import firstspike as fs
from firstspike import codes
from firstspike.codes import Code
from firstspike.codes.relpsp import Moments
from firstspike.testing import Case, Reference


def table(kernel: Callable[[float, int], float], middle: Callable | None = None) -> Reference:
    """TTFS: fire at the first threshold that is reached, deliver the kernel's value."""

    def reference(code: Code, u: float) -> list[float]:
        assert isinstance(code, fs.TTFS)
        out = [0.0] * code.window
        for t in range(code.window):
            threshold = kernel(t, code.window)
            if code.half_step:
                half = middle or (lambda t, window: kernel(t + 0.5, window))
                threshold = half(t, code.window)
            if u >= threshold:
                out[t] = kernel(t, code.window)
                break
        return out

    return reference


def exponential(t: float, window: int) -> float:
    return math.exp(-t / (0.3 * window))


def delayed(t: float, window: int) -> float:
    return math.exp((0.5 - t) / (window / 3))


def linear(t: float, window: int) -> float:
    return (window - t) / window


def power(t: float, window: int) -> float:
    return 2.0**-t


def rate(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.Rate)
    potential, out = code.initial_potential, []
    for _ in range(code.steps):
        potential += u
        out.append(1.0 if potential >= 1.0 else 0.0)
        potential -= out[-1]
    return out


def phase(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.Phase)
    potential, out = code.initial_potential * 2.0**-code.period, []
    for t in range(code.steps):
        weight = 2.0 ** -(1 + t % code.period)
        potential += u if t % code.period == 0 else 0.0
        out.append(weight if potential >= weight else 0.0)
        potential -= out[-1]
    return out


def burst(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.Burst)
    potential, gain, out = code.initial_potential * code.threshold, 1.0, []
    for _ in range(code.steps):
        potential += u
        fires = potential >= gain * code.threshold
        out.append(gain * code.threshold if fires else 0.0)
        potential -= out[-1]
        gain = gain * code.factor if fires else 1.0
    return out


def few_step(code: Code, u: float) -> list[float]:
    assert isinstance(code, codes.FewStep) and isinstance(code.thresholds, codes.Fixed)
    alpha, beta = code.thresholds.alpha, code.thresholds.beta
    potential, out = code.initial_potential * alpha, []
    for _ in range(code.steps):
        potential = code.leak * potential + u + code.bias_shift * alpha / code.steps
        fires = potential >= alpha
        out.append(beta * alpha if fires else 0.0)
        potential -= alpha if fires else 0.0
    return out


def lif(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.LIF)
    potential, current, out = 0.0, 0.0, []
    for _ in range(code.steps):
        current = u + (0.0 if code.tau_syn is None else (1 - 1 / code.tau_syn) * current)
        potential = current + potential * (1.0 if code.tau_mem is None else 1 - 1 / code.tau_mem)
        out.append(1.0 if potential >= 1.0 else 0.0)
        potential = 0.0 if out[-1] else potential
    return out


def reverse(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.Reverse)
    out = [0.0] * code.window
    late = 0.5 if code.half_step else 0.0
    for t in reversed(range(code.window)):
        before_end = code.window - 1 - t
        if u >= math.exp(-(before_end + late) / code.time_constant):
            out[t] = math.exp(-before_end / code.time_constant)
            break
    return out


def temporal_switch(code: Code, u: float) -> list[float]:
    assert isinstance(code, fs.TemporalSwitch)
    levels = code.window - 1
    k = min(max(math.floor(u * levels + 0.5), 0), levels)
    return [1.0 / levels if t < k else 0.0 for t in range(code.window)]


def ramp(code: Code, u: float) -> list[float]:
    assert isinstance(code, codes.ReLPSP) and code.steps is not None
    k = next((k for k in range(code.steps) if u >= 1 - k / code.steps), code.steps)
    return [0.0] * k + [1 / code.steps] * (code.steps - k)


def ttfs(kernel: codes.Kernel | Callable[[int], codes.Kernel], half_step: bool = True):
    def make(window: int) -> Code:
        chosen = kernel(window) if not isinstance(kernel, codes.Kernel) else kernel
        return fs.TTFS(window, chosen, half_step=half_step)

    return make


CASES: dict[str, Case] = {
    "TTFS exponential": Case(ttfs(fs.kernels.Exponential()), table(exponential), (8, 32, 128)),
    "TTFS exponential, down": Case(ttfs(fs.kernels.Exponential(), False), table(exponential)),
    "TTFS delayed": Case(
        ttfs(lambda window: fs.kernels.Exponential(tau=window / 3, delay=0.5)), table(delayed)
    ),
    "TTFS linear": Case(ttfs(fs.kernels.Linear()), table(linear)),
    "TTFS linear, down": Case(ttfs(fs.kernels.Linear(), False), table(linear)),
    "TTFS powers of two": Case(
        ttfs(fs.kernels.PowerOfTwo()),
        table(power, lambda t, window: 0.75 * power(t, window)),
        budgets=(1, 4),
        most=8,
    ),
    "Rate": Case(fs.Rate, rate),
    "Rate, down": Case(lambda steps: fs.Rate(steps, initial_potential=0.0), rate),
    "Phase": Case(fs.Phase, phase, (8, 64, 512), monotone=False),
    "Burst": Case(fs.Burst, burst, (16, 128, 1024), monotone=False),
    "FewStep": Case(
        lambda steps: codes.FewStep(steps, bias_shift=0.5, thresholds=codes.Fixed()), few_step
    ),
    "FewStep, leaking": Case(
        lambda steps: codes.FewStep(steps, leak=0.75, thresholds=codes.Fixed(0.5, 0.875)),
        few_step,
        budgets=(),
    ),
    # a hard reset loses what is left, so that the error does not fall with the budget
    "LIF, no leak": Case(fs.LIF, lif, budgets=()),
    "LIF": Case(lambda steps: fs.LIF(steps, tau_mem=20.0), lif, budgets=()),
    "LIF with synapse": Case(
        lambda steps: fs.LIF(steps, tau_mem=10.0, tau_syn=4.0), lif, budgets=()
    ),
    "Reverse": Case(fs.Reverse, reverse),
    "Reverse, down": Case(lambda window: fs.Reverse(window, half_step=False), reverse),
    "TemporalSwitch": Case(fs.TemporalSwitch, temporal_switch),
    "ReLPSP": Case(codes.ReLPSP, ramp, complete=lambda u: Moments(u, None, 1)),
}

# Continuous time alone: there are no steps to hold them to; their own tests do without.
WITHOUT_STEPS: set[type[Code]] = {codes.ExactReLU}

# Made from networks of another code: tests/quantized/test_integers.py holds it to int64 arithmetic.
DERIVED: set[type[Code]] = {codes.IntegerTTFS, codes.IntegerReverse}
