"""A benchmark against a stored one: ratio by ratio, what became slower or faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstspike._reading import read_json, reading
from firstspike.bench.processors import described, kind_of
from firstspike.bench.timing import Row
from firstspike.config import require

TOLERANCE = 0.1
_KIND = "a benchmark that `firstspike bench` stored"
_ADVICE = "Pass a file of `firstspike bench --json FILE`, or speed_PART.json of `--store`."
_NUMBERS = ("ratio", "low", "high")


@dataclass(frozen=True)
class Change:
    """One ratio before and now.

    Attributes:
        part, name: of the row, with its size where the name does not say it.
        before, now: the ratio, or the exponent of a row of the part `scaling`; None: not measured.
        verdict: "slower", "faster", "" (neither), "new" or "gone".
        exponent: whether it is one.
    """

    part: str
    name: str
    before: float | None
    now: float | None
    verdict: str
    exponent: bool = False

    @property
    def change(self) -> str:
        """By how much it changed, of an exponent the difference; empty if there is no telling."""
        if self.before is None or self.now is None:
            return ""
        if self.exponent:
            return f"{self.now - self.before:+.2f}"
        return f"{100 * (self.now / self.before - 1):+.0f} %" if self.before else ""


@dataclass(frozen=True)
class Stored:
    """A benchmark read from a file.

    Attributes:
        path: the file.
        rows: part, name and size -> row.
        quick: whether sizes were small ones; None if the file does not say.
        environment: where and when it was measured: `cpu`, `cpu_flags`, `threads`, `date`, `torch`.
    """

    path: Path
    rows: Mapping[tuple[str, str, str], Mapping[str, Any]]
    quick: bool | None
    environment: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Stored:
        """Read a file of `bench --json` or `bench --store`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or holds something else.
        """
        content = read_json(path)
        with reading(path, _KIND, _ADVICE):
            made = content["environment"]
            environment = {
                "cpu": str(made["cpu"]),
                "cpu_flags": [str(flag) for flag in made["cpu_flags"]],
                "threads": int(made["threads"]),
                "date": str(made["date"]),
                "torch": str(made["versions"]["torch"]),
            }
            rows = {_key(row): row for row in content["rows"]}
            if not rows:
                raise ValueError("it has no rows")
            for row in rows.values():
                if any(not isinstance(row[k], int | float | None) for k in _NUMBERS):
                    raise ValueError(f"row {row['name']!r} has a ratio that is no number")
            return cls(Path(path), rows, content.get("quick"), environment)

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(part for part, _, _ in self.rows))

    def __str__(self) -> str:
        at = self.environment
        return f"{self.path} ({_processor(at)}, torch {at['torch']}, {at['date'][:10]})"

    def check(self, quick: bool, environment: Mapping[str, Any]) -> None:
        """Refuse what cannot be compared with a run of this size in this environment.

        Raises:
            ValueError: if sizes, kind of processor or threads differ.
        """
        if self.quick is not None and self.quick != quick:
            was, do = ("with", "Add") if self.quick else ("without", "Leave out")
            raise ValueError(
                f"{self.path} was measured {was} --quick, and sizes must be the same. {do} --quick."
            )
        theirs, ours = (
            (kind_of(e["cpu_flags"]), e["threads"]) for e in (self.environment, environment)
        )
        if theirs[0] != ours[0]:
            raise ValueError(
                f"{self.path} was measured on {_processor(self.environment)}, and this is "
                f"{_processor(environment)}. Ratios of different kinds of processors say nothing "
                "of a change: measure both on one machine."
            )
        if theirs[1] != ours[1]:
            raise ValueError(
                f"{self.path} was measured with {theirs[1]} threads, this run has {ours[1]}. Pass "
                f"--threads {theirs[1]}."
            )

    def compare(self, rows: Sequence[Row], tolerance: float = TOLERANCE) -> list[Change]:
        """What became of every ratio.

        A row is slower, or faster, if its ratio changed by more than `tolerance` of what it was
        (an exponent: by more than `tolerance`) and the quartiles do not overlap, for rounds that
        differ as much among themselves say nothing. Baselines, whose ratio is 1, are left out.

        Args:
            rows: of this run.
            tolerance: 0.1 is ten per cent.

        Raises:
            ValueError: if `tolerance` is negative, or no row is in both.
        """
        require(tolerance >= 0, "tolerance", "not be negative", tolerance, "0.1 is ten per cent.")
        now = {_key(row.to_dict()): row.to_dict() for row in rows}
        if not any(key in self.rows for key in now):
            raise ValueError(
                f"{self.path} has no row in common with this run. Were sizes or parts others? It "
                f"has the parts {', '.join(self.parts) or 'none'}."
            )
        changes = []
        for key in dict.fromkeys([*self.rows, *now]):
            old, new = self.rows.get(key), now.get(key)
            if key[0] not in {part for part, _, _ in now} or _is_baseline(new or old or {}):
                continue
            before, after = (None if row is None else row["ratio"] for row in (old, new))
            if before is None and after is None:
                continue
            told = key[2].split(",")[0] in key[1]
            name = key[1] if told else f"{key[1]}, {key[2]}"
            verdict = _verdict(old, new, tolerance) if old and new else ""
            if before is None or after is None:
                verdict = "new" if before is None else "gone"
            exponent = "axis" in (new or old or {})
            changes.append(Change(key[0], name, before, after, verdict, exponent))
        return changes


def _verdict(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float) -> str:
    if old["ratio"] is None or new["ratio"] is None:
        return ""
    limit = tolerance if "axis" in new else tolerance * abs(old["ratio"])
    change = new["ratio"] - old["ratio"]
    slow, fast = (new, old) if change > 0 else (old, new)
    if abs(change) <= limit or _edge(slow, "low") <= _edge(fast, "high"):
        return ""
    return "slower" if change > 0 else "faster"


def _edge(row: Mapping[str, Any], name: str) -> float:
    return float(row["ratio"] if row[name] is None else row[name])


def _is_baseline(row: Mapping[str, Any]) -> bool:
    return bool(row["ratio"] == row["low"] == row["high"] == 1)


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["part"]), str(row["name"]), str(row.get("size", ""))


def _processor(environment: Mapping[str, Any]) -> str:
    return described(environment["cpu"], environment["cpu_flags"])
