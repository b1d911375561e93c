"""Rows and verdicts: ours against the paper's values and our goals, by the rule of each metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from firstspike.measure.result import Result
from firstspike.reproduce.metrics import METRICS, Claim, measure
from firstspike.reproduce.outcome import Cell, ClaimVerdict, Row
from firstspike.reproduce.registry import Entry
from firstspike.reproduce.scales import Scale, Setting

# setting label -> network -> one result per seed
Measured = Mapping[str, Mapping[str, Sequence[Result]]]


def rows_of(
    entry: Entry,
    scale: Scale,
    settings: Sequence[Setting],
    measured: Measured,
    ann: Mapping[str, Sequence[float]],
) -> list[Row]:
    """A row per setting and network, in the entry's order.

    Args:
        ann: setting label -> accuracy of the ANN per seed, a fraction.
    """
    rows = []
    for setting in settings:
        for network, results in measured[setting.label].items():
            reference = entry.references.get(setting.label) if setting.comparable else None
            ours: dict[str, list[float]] = {}
            for metric in entry.metrics:
                found = [
                    measure(r, metric, a, reference) for r, a in zip(results, ann[setting.label])
                ]
                known = [value for value in found if value is not None]
                if len(known) == len(found):
                    ours[metric] = known
            rows.append(row_of(entry, scale, setting, network, ours))
    return rows


def row_of(
    entry: Entry,
    scale: Scale,
    setting: Setting,
    network: str,
    ours: Mapping[str, Sequence[float]],
) -> Row:
    """A row and its verdicts.

    Args:
        ours: metric -> what was measured, one value per seed.
    """
    paper, goals = entry.printed(setting.label, network), _goals(entry, setting, scale, network)
    cells = {
        metric: judge(metric, values, paper.get(metric), goals.get(metric), setting, scale)
        for metric, values in ours.items()
    }
    where = entry.beside.get(setting.label, setting.label)
    place = f"{entry.place}, {where}, {network}" if paper else ""
    return Row(setting=setting.label, network=network, place=place, cells=cells)


def _goals(entry: Entry, setting: Setting, scale: Scale, network: str) -> dict[str, float]:
    """Goals of the row; a loss against the ANN binds any network, the others the paper's alone."""
    goals = dict(entry.goals.get(setting.label, {}).get(network, {}))
    for table in entry.goals.values():
        if "loss" in table.get(network, {}):
            goals.setdefault("loss", table[network]["loss"])
    return {} if scale.name == "small" else goals


def judge(
    metric: str,
    ours: Sequence[float],
    paper: float | None,
    goal: float | None,
    setting: Setting,
    scale: Scale,
) -> Cell:
    """A cell and its verdict: the mean over the seeds against the paper's value and the goal."""
    rule, mean = METRICS[metric], statistics.fmean(ours)
    passed: bool | None = None
    reasons = []
    if paper is not None and not setting.comparable:
        reasons.append(f"not judged: {scale.name} scale, {setting.reason}")
    elif paper is not None:
        bound = rule.bound(paper)
        passed = rule.passes(mean, bound)
        reasons.append(_compared(metric, mean, bound, passed, f"paper {paper:g}, {rule.rule}"))
    if goal is not None:
        met = rule.passes(mean, goal)
        passed = met if passed is None else passed and met
        reasons.append(_compared(metric, mean, goal, met, "goal"))
    return Cell(
        ours=list(ours),
        mean=mean,
        spread=statistics.pstdev(ours),
        paper=paper,
        goal=goal,
        passed=passed,
        reason="; ".join(reasons),
    )


def _compared(metric: str, mean: float, bound: float, passed: bool, what: str) -> str:
    rule = METRICS[metric]
    sign = (">=" if passed else "<") if rule.higher else ("<=" if passed else ">")
    return f"{mean:,.{rule.digits}f} {sign} {bound:,.{rule.digits}f} ({what})"


def claims_of(entry: Entry, rows: Sequence[Row]) -> list[ClaimVerdict]:
    """A verdict on each claim of the entry, setting by setting, in the means over the seeds.

    A network that never settles does so later than any other: a claim that it settles first does
    not hold. Where one of the two was not run, the claim is not judged and says why.
    """
    found = {(row.setting, row.network): row for row in rows}
    verdicts = []
    for setting in dict.fromkeys(row.setting for row in rows):
        for claim in entry.claims:
            passed, reason = _verdict(claim, *(found.get((setting, n)) for n in claim.networks))
            verdicts.append(
                ClaimVerdict(
                    text=str(claim),
                    setting=setting,
                    passed=passed,
                    reason=reason,
                    construction=claim.construction,
                )
            )
    return verdicts


def _verdict(claim: Claim, less: Row | None, more: Row | None) -> tuple[bool | None, str]:
    absent = [name for name, row in zip(claim.networks, (less, more)) if row is None]
    if less is None or more is None:
        return None, f"not run: {', '.join(absent)}"
    means = []
    for row in (less, more):
        cell = row.cells.get(claim.metric)
        if cell is None and claim.metric != "settled":
            return None, f"{row.network} has no {METRICS[claim.metric].head}"
        means.append(math.inf if cell is None else cell.mean)
    passed = means[0] < means[1]
    digits = METRICS[claim.metric].digits
    said = ["never" if mean == math.inf else f"{mean:,.{digits}f}" for mean in means]
    return passed, f"{said[0]} {'<' if passed else '>='} {said[1]}"
