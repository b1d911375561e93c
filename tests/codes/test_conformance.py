"""Every code keeps the promises of `firstspike.testing`. A new one is listed in its cases."""

from pathlib import Path

import pytest
from conformance_cases import CASES

from firstspike.testing import PROMISES


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", CASES)
def test_codes_keep_their_promises(name: str, promise: str, tmp_path: Path) -> None:
    PROMISES[promise](CASES[name], tmp_path)
