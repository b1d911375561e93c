"""The list of codes is complete, and every code on it is held to the conformance suite."""

import pytest
from conformance_cases import CASES, DERIVED, WITHOUT_STEPS

from firstspike import codes
from firstspike.codes import CODES, Code, build_code


def test_every_registered_code_is_in_the_conformance_suite() -> None:
    tested = {type(case.make(8)) for case in CASES.values()}
    assert tested | WITHOUT_STEPS | DERIVED == set(CODES.values())


def test_every_public_code_is_registered() -> None:
    public = [getattr(codes, name) for name in codes.__all__]
    found = {c for c in public if isinstance(c, type) and issubclass(c, Code) and c is not Code}
    assert found == set(CODES.values())


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "Morse"}, "`code` must be one of TTFS, .*, got 'Morse'"),
        ({}, "`code` must be one of TTFS, .*, got None"),
        ({"name": "TTFS", "window": 8, "kernel": {"name": "Cubic"}}, "`kernel` must be one of Exp"),
        ({"name": "TTFS", "window": 8, "dots": 1}, "TTFS cannot be made from .*dots"),
        ({"name": "TTFS"}, "TTFS cannot be made from .*window"),
        ({"name": "TTFS", "window": 0}, "`window` must be at least 1, got 0"),
    ],
)
def test_descriptions_that_make_no_code(description: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_code(description)
