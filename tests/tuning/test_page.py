"""The space of docs/tuning.md is one."""

import re
from pathlib import Path

import yaml

from firstspike.tuning import read_space

PAGE = Path(__file__).parents[2] / "docs" / "tuning.md"


def test_the_space_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    space = read_space(yaml.safe_load(text))
    names = [option["name"] for option in space["code"]["choose"].values()]
    assert names == ["TTFS", "TTFS", "FewStep"] and space["weights"]["choose"]["4"] == {"bits": 4}
