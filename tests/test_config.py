"""Configurations by name: from plain data, from text as in Python, and back."""

import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

import firstspike as fs
from firstspike import data
from firstspike.codes.kernels import Kernel
from firstspike.codes.repeating import RepeatingCode
from firstspike.config import UnknownName, build, describe, known, register, unregister
from firstspike.training.distillation import Distilled
from firstspike.training.single_spike import SingleSpikeMethod

WINDOWS = st.integers(1, 24)
KERNELS = st.one_of(
    st.builds(
        fs.kernels.Exponential, tau=st.none() | st.floats(1.0, 99.0), delay=st.floats(0.0, 2.0)
    ),
    st.builds(fs.kernels.Linear),
    st.builds(fs.kernels.PowerOfTwo),
    st.builds(fs.kernels.Learned, iterations=st.integers(1, 99)),
)
CODES = st.one_of(
    st.builds(fs.TTFS, WINDOWS, KERNELS, st.none(), st.booleans(), st.none() | WINDOWS),
    st.builds(fs.Rate, WINDOWS, input=st.builds(fs.inputs.Bernoulli, st.integers(0, 9))),
    st.builds(
        fs.FewStep, WINDOWS, thresholds=st.builds(fs.thresholds.GridSearch, st.integers(2, 9))
    ),
)


@given(CODES)
def test_codes_come_back_from_plain_data_and_from_their_own_text(code: fs.codes.Code) -> None:
    assert build("code", describe(code)) == code
    assert build("code", repr(code)) == code
    assert build("code", code) is code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TTFS(16, Linear())", fs.TTFS(16, fs.kernels.Linear())),
        ("TTFS(16, kernel=Linear, offset=8)", fs.TTFS(16, fs.kernels.Linear(), offset=8)),
        (
            " fs.TTFS(window=16, kernel=fs.kernels.Exponential(tau=4.0))",
            fs.TTFS(16, fs.kernels.Exponential(4.0)),
        ),
        ("Rate(32, input=FirstSpikes(period=8))", fs.Rate(32, input=fs.inputs.FirstSpikes(8))),
        (
            "FewStep(2, thresholds=Fixed(0.5, beta=0.75))",
            fs.FewStep(2, thresholds=fs.thresholds.Fixed(0.5, 0.75)),
        ),
        ("ReLPSP", fs.ReLPSP()),
    ],
)
def test_codes_are_written_as_in_python(text: str, expected: fs.codes.Code) -> None:
    assert build("code", text) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("TTFS(16, kernel=Liner())", 17, "`kernel` must be one of .*Linear.*, got 'Liner'"),
        ("Morse(3)", 1, "`code` must be one of .*TTFS.*, got 'Morse'"),
        ("TTFS(16, dots=1)", 1, "TTFS cannot be made from .*dots.* parameters: window, kernel"),
        ("TTFS()", 1, "TTFS cannot be made from .*missing a required argument: 'window'"),
        ("TTFS(16, offset=17)", 1, r"`offset` must be at most the window \(16\), got 17"),
        ("TTFS(2.5)", 1, "`window` must be an integer, got 2.5"),
        ("TTFS(16", 5, "was never closed"),
        ("TTFS(8 + 8)", 6, "`window` must be a number, a text"),
        ("TTFS(window=open('x'))", 13, "`window` must be a number, a text"),
        ("__import__('os').system('true')", 1, "`code` must be one of .*, got 'system'"),
        ("TTFS(*[8])", 6, "write parameters one by one"),
        ("TTFS(**{'window': 8})", 6, "write parameters one by one"),
        ("[TTFS(8)]", 1, "a name with parameters must stand here"),
        ("lambda: 1", 1, "a name with parameters must stand here"),
        ("", 1, "invalid syntax"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, column: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build("code", text)
    first, *rest = str(caught.value).splitlines()
    assert f"cannot be read at column {column}:" in first
    assert rest[-2].strip() == text.strip() and rest[-1].index("^") == 2 + column - 1


def test_nothing_in_a_text_is_evaluated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`window` must be a number"):
        build("code", f"TTFS(open({str(tmp_path / 'file')!r}, 'w'))")
    assert not list(tmp_path.iterdir())


def test_every_registered_name_says_what_its_parameters_take() -> None:
    for kind in ("code", "kernel", "input", "normalization", "method", "schedule", "augmentation"):
        assert known(kind)
    assert set(known("model")) >= {"mnist_cnn", "vgg16"} and "canmore22" in known("chip")
    method = build("method", "SGL(surrogate=Triangle(), dropout=0.5)")
    assert build("method", describe(method)) == method
    assert (
        build("method", "QuantizerAware(perturbation=Perturbation(bits=4))").perturbation.bits == 4
    )


def test_all_of_ours_are_registered() -> None:
    from firstspike import config_names

    for kind in config_names._KINDS:
        names = list(known(kind).values())
        base = config_names._KINDS[kind].base
        for module in [m for name, m in sys.modules.items() if name.startswith("firstspike.")]:
            for found in vars(module).values():
                plain = isinstance(found, type) and get_origin(found) is None  # no Callable[...]
                if plain and base is not None and issubclass(found, base):
                    ours = found.__module__ == module.__name__ and not inspect.isabstract(found)
                    shared = found in (base, RepeatingCode, Distilled, SingleSpikeMethod)
                    assert not ours or shared or found in names, found
    in_public = {getattr(data, n) for n in data.__all__ if n.startswith(("Random", "G", "Cu"))}
    assert in_public <= set(known("augmentation").values())


def test_what_is_registered_is_known_by_name_and_as_a_parameter() -> None:
    @register
    @dataclass(frozen=True)
    class Halves(Kernel):
        power: int = 1
        inner: Kernel = field(default_factory=fs.kernels.Linear)

        def build(self, window, distribution):
            return fs.kernels.PowerOfTwo().build(window, distribution)

    try:
        code = build("code", "TTFS(8, kernel=Halves(2, inner=PowerOfTwo()))")
        assert code.kernel == Halves(2, fs.kernels.PowerOfTwo())
        assert build("code", code.describe()) == code
        with pytest.raises(ValueError, match="`name` must be new among the kernels, got 'Linear'"):
            register(Halves, name="Linear")
    finally:
        unregister(Halves)
    with pytest.raises(UnknownName, match=r"got 'Halves'.*`register` it there and import the file"):
        build("code", code.describe())


def test_only_what_has_a_kind_can_be_registered() -> None:
    for thing in (3, dict, lambda: None):
        with pytest.raises(TypeError, match="`thing` must be of a kind that the library knows"):
            register(thing)
    with pytest.raises(TypeError, match="`thing` must be of a kind"):
        register(dict, kind="hat")
    with pytest.raises(ValueError, match=r"`kind` must be one of code, .*, got 'hat'"):
        build("hat", "Bowler()")


def test_finished_configurations_are_found_by_name() -> None:
    from firstspike.chip import load_chip

    mine = register(load_chip("canmore22").replace(core__neurons=7), name="mine")
    try:
        assert load_chip("mine") is mine is build("chip", "mine")
        with pytest.raises(ValueError, match="mine takes no parameters"):
            build("chip", {"name": "mine", "cores": 4})
    finally:
        unregister(mine)
