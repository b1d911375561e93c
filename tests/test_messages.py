"""Every error that the library raises says which argument, which rule, which value, what to do.

The sources are read, so that a new message is held to the rule before anybody meets it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstspike

SOURCE = Path(firstspike.__file__).parent

NAMED = re.compile(r"`|\{\}|^the (?:model|graph|mapping|input)|\bgot no")
# what the user does next: a sentence of its own, or a rule that lists or bounds what is allowed
STEP = re.compile(
    r"[.!?][)\"'`]*\s+[A-Z`{0-9]|\{\}\s+[A-Z][a-z]+\b"  # a second sentence
    r"|must (?:\w+ )?(?:be|name|give|lie in|end in|look like|start with) (?:one of|in |[\"'{0-9])"
    r"|must (?:be|lie|have|hold|name|limit) .*\b(?:at least|at most|in \[|finite|positive|one per)"
    r"|\{reason\}\.?$"  # of `reason_against`, whose table says what can instead
    r"|(?:^|[;:,] )(?:so )?(?:pass|use|stop on|save|convert|pip install) "
)

# Modules whose errors are all raised under `reading`, which puts the file in front of them and the
# advice behind, or (the download) are tried again.
UNDER_READING = {
    *("_reading.py", "_tensors.py", "networks/rebuild.py", "networks/outputs.py"),
    *(
        "exchange/nir_files.py",
        "data/archives.py",
        "data/packed.py",
        "exchange/spike_files.py",
        "chip/hand_over.py",
    ),
}
# Not for users: Python's own form, our invariants, reasons that another message quotes.
OTHER_KINDS = {"AttributeError", "AssertionError", "NotImplementedError", "NoTaps"}
OURS = re.compile("ValueError|DownloadError")
# Quoted in a message that says the rest, or shown with the place at fault under the text.
QUOTED = {
    "`{}` cannot be read at column {}: {}\n  {}\n  {}^": "config_text.py",
    "format {}, this version reads 1": "exchange/nir_read.py",
    "logits must have the shape {}, got {}": "exchange/door.py",
}


def text_of(node: ast.expr) -> str | None:
    """A message with {} for what is formatted in; None for something that is no message."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value)
            if isinstance(part, ast.Constant)
            else ("{reason}" if ast.unparse(part.value) == "reason" else "{}")
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(text_of(part) or "{}" for part in (node.left, node.right))
    return None


def raised(node: ast.AST) -> Iterator[ast.Raise]:
    """What users may meet: not under `reading`, not an error of ours that is quoted as it is."""
    if isinstance(node, ast.With):
        calls = [i.context_expr for i in node.items if isinstance(i.context_expr, ast.Call)]
        if any(ast.unparse(call.func) == "reading" for call in calls):
            return
    if isinstance(node, ast.ExceptHandler) and node.name and OURS.search(ast.unparse(node.type)):
        for statement in ast.walk(node):
            if isinstance(statement, ast.Raise) and f"{{{node.name}}}" not in ast.unparse(
                statement
            ):
                yield statement
        return
    if isinstance(node, ast.Raise):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from raised(child)


def messages() -> Iterator[tuple[str, str]]:
    """`file:line` and text of everything that is raised with a message in place."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in UNDER_READING:
            continue
        for node in raised(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node.exc, ast.Call):
                continue
            kind = ast.unparse(node.exc.func)
            if kind in OTHER_KINDS or kind.startswith("_"):  # made by a function, read there
                continue
            texts = [text for text in map(text_of, node.exc.args) if text is not None]
            text = max(texts, key=len, default="")
            if text and QUOTED.get(text) != name:
                yield f"{name}:{node.lineno}", text


def test_every_error_names_what_is_wrong_and_what_to_do():
    found = dict(messages())
    assert len(found) > 300
    bad = {
        where: text
        for where, text in found.items()
        if not (NAMED.search(text) and STEP.search(text))
    }
    assert not bad, "\n".join(f"{where} {text}" for where, text in bad.items())


@pytest.mark.parametrize(
    "bare", ["bad value", "`steps` is wrong", "steps must be positive.", "it failed: {}"]
)
def test_bare_messages_would_be_found(bare):
    assert not (NAMED.search(bare) and STEP.search(bare))
