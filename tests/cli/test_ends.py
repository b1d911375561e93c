"""How a command ends when it is interrupted or needs too much: one message, and what was kept."""

import pytest

import firstspike.cli
from firstspike.cli import app as verbs


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "what was finished is kept, and the same command goes on"),
        (MemoryError(), 2, "needs more memory than there is. Files are as they were; use smaller"),
        (RecursionError(), 2, "needs too deep a nest. Files are as they were"),
        (ValueError("`steps` must be 1."), 2, "firstspike: error: `steps` must be 1."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_command_says_what_was_kept(error, status, said, monkeypatch, capsys):
    def verb(**_: object) -> None:
        raise error

    monkeypatch.setattr(verbs, "app", verb)
    with pytest.raises(SystemExit) as end:
        firstspike.cli.main()
    assert end.value.code == status
    message = " ".join(capsys.readouterr().err.split())
    assert said in message and "Traceback" not in message
