"""The snippets of docs/training.md run, one after the other, as they are printed."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def test_the_snippets_of_the_training_page_run(tmp_path, monkeypatch, capsys):
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) >= 4
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert "RobustnessPoint" in capsys.readouterr().out
    assert names["first"].predictions.tolist() == (
        names["first"].spike_times["output_spikes"].argmin(1).tolist()
    )
