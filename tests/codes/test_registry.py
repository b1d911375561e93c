"""The list of codes is complete, and every code on it is held to the conformance suite."""

import pytest
from conformance_cases import CASES, DERIVED, WITHOUT_STEPS

from firstspike import codes
from firstspike.codes import Code
from firstspike.config import build, known


def ours() -> set[type[Code]]:
    """Codes of the library itself; tests of plugins register further ones."""
    return {c for c in known(Code).values() if c.__module__.startswith("firstspike.")}


def test_every_registered_code_is_in_the_conformance_suite() -> None:
    tested = {type(case.make(8)) for case in CASES.values()}
    assert tested | WITHOUT_STEPS | DERIVED == ours()


def test_every_public_code_is_registered() -> None:
    public = [getattr(codes, name) for name in codes.__all__]
    found = {c for c in public if isinstance(c, type) and issubclass(c, Code) and c is not Code}
    assert found == ours()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "Morse"}, "`code` must be one of .*TTFS.*, got 'Morse'.*--plugin"),
        ({}, r"`code` must be \{name: ...\} with one of .*TTFS.*, got \{\}"),
        (
            {"name": "TTFS", "window": 8, "kernel": {"name": "Cubic"}},
            "`kernel` must be one of .*Linear",
        ),
        ({"name": "TTFS", "window": 8, "dots": 1}, "TTFS cannot be made from .*dots"),
        ({"name": "TTFS"}, "TTFS cannot be made from .*window"),
        ({"name": "TTFS", "window": 0}, "`window` must be at least 1, got 0"),
    ],
)
def test_descriptions_that_make_no_code(description: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Code, description)


@pytest.mark.parametrize(
    ("code", "first"),
    [
        (codes.Rate(8), "more steps"),
        (
            codes.ReLPSP(),
            "training it (method DTA)",
        ),  # it has no steps, and on a grid they do not help
        (codes.FewStep(2), "training it (method SGL)"),
        (codes.LIF(32), "subtract=True"),  # what a reset to zero loses, more steps lose as well
        (codes.LIF(32, subtract=True), "more steps"),
    ],
    ids=str,
)
def test_advice_is_something_that_helps(code: Code, first: str) -> None:
    assert code.advice()[0] == first
