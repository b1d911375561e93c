"""The snippets of docs/export.md run, one after the other, as they are printed."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "export.md"


def test_the_snippets_of_the_export_page_run(capsys):
    pytest.importorskip("nir")
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 5
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert "neurons spike alike, 64 of 64 classes equal" in capsys.readouterr().out
    assert names["again"].code == names["loaded"].code == names["network"].code
    assert names["same"].latency == names["record"].latency
