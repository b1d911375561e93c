"""A reproduction as rows of text, for the terminal and for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from firstspike.report.comparison import equal_spikes_rows, equal_steps_rows, markdown
from firstspike.reproduce.analysis import analysis, missed
from firstspike.reproduce.metrics import METRICS
from firstspike.reproduce.outcome import Cell, ClaimVerdict, Reproduction, Row, key_of
from firstspike.reproduce.registry import elsewhere, entry_content, entry_names, load_entry
from firstspike.reproduce.scales import SCALES, at_scale, stand_in

_CLAIM = {True: "holds", False: "does NOT hold", None: "not judged"}
_WITH_INPUT = "with the input's"
_WORD = {True: "pass", False: "MISS", None: ""}


def table(outcome: Reproduction) -> list[dict[str, str]]:
    """One mapping per row: ours as mean ± spread with the paper's value, and the verdict."""
    metrics = list(dict.fromkeys(name for row in outcome.rows for name in row.cells))
    rows = []
    for row in outcome.rows:
        line = {"network": f"{row.setting}: {row.network}"}
        for name in metrics:
            cell = row.cells.get(name)
            line[METRICS[name].head] = "" if cell is None else _cell(name, cell)
            if name == "spikes" and (total := _with_input(outcome, row)):
                line[_WITH_INPUT] = total
        judged = [cell.passed for cell in row.cells.values() if cell.passed is not None]
        line["verdict"] = _WORD[all(judged)] if judged else "–"
        rows.append(line)
    return rows


def _with_input(outcome: Reproduction, row: Row) -> str:
    """Mean over the seeds of all spikes, the input's too: printed, and never judged."""
    keys = [key_of(row.setting, row.network, seed) for seed in outcome.seeds]
    measured = [outcome.results[key] for key in keys if key in outcome.results]
    totals = [r.spikes_per_sample + r.input_spikes_per_sample for r in measured]
    return f"{statistics.fmean(totals):,.0f}" if totals else ""


def _cell(metric: str, cell: Cell) -> str:
    digits = METRICS[metric].digits
    text = f"{cell.mean:,.{digits}f}"
    if len(cell.ours) > 1:
        text += f" ± {cell.spread:,.{digits}f}"
    if cell.paper is not None:
        text += f" (paper {cell.paper:,.{digits}f})"
    if cell.goal is not None:
        text += f" (goal {cell.goal:,.{digits}f})"
    return text


def verdicts(outcome: Reproduction) -> list[str]:
    """Why each row passes or misses, then the paper's claims, then the engines."""
    lines = []
    for row in outcome.rows:
        for name, cell in row.cells.items():
            if cell.passed is not None:
                place = f"{row.setting}: {row.network}, {METRICS[name].head}"
                lines.append(f"{_WORD[cell.passed]}: {place}: {cell.reason}")
    skipped = [
        cell.reason for row in outcome.rows for cell in row.cells.values() if cell.passed is None
    ]
    lines += list(dict.fromkeys(reason for reason in skipped if reason))
    for claim in outcome.claims:
        lines.append(f"claim {_CLAIM[claim.passed]}: {claim.setting}, {claim.text}: {_why(claim)}")
    for check in outcome.engines:
        place = f"{check.setting}: {check.network}, seed {check.seed}"
        ours, other = 100 * check.accuracy, 100 * check.other_accuracy
        lines.append(
            f"{_WORD[check.passed]}: engines agree: {place}: "
            f"{check.measured_with.replace('_', ' ')} {ours:.2f} and "
            f"{check.engine} {other:.2f} % on {check.samples:,} images, "
            f"{check.spikes_different:,} spikes differ"
        )
    return lines


def _why(claim: ClaimVerdict) -> str:
    marked = f" (by construction: {claim.construction})" if claim.construction else ""
    return f"{claim.reason}{marked}"


def claim_rows(outcomes: Sequence[Reproduction]) -> list[dict[str, str]]:
    """Every claim of every entry with its verdict and why, a mapping per claim and setting.

    Args:
        outcomes: stored; claims of entries without one are not judged.
    """
    rows = []
    for entry in map(load_entry, entry_names()):
        judged = [
            {
                "entry": entry.name,
                "scale": outcome.scale,
                "setting": claim.setting,
                "claim": claim.text,
                "verdict": _CLAIM[claim.passed],
                "why": _why(claim),
            }
            for outcome in outcomes
            for claim in outcome.claims
            if outcome.entry == entry.name
        ]
        known = {row["claim"] for row in judged}
        rows += judged
        rows += [
            {
                "entry": entry.name,
                "scale": "–",
                "setting": "–",
                "claim": str(claim),
                "verdict": _CLAIM[None],
                "why": f"no stored outcome: firstspike reproduce {entry.name} --store FOLDER",
            }
            for claim in entry.claims
            if str(claim) not in known
        ]
    return rows


def entry_rows() -> list[dict[str, str]]:
    """What can be reproduced, a mapping per entry."""
    entries = [load_entry(name) for name in entry_names()]
    return [
        {
            "name": entry.name,
            "paper": entry.paper,
            "place": entry.place,
            "shows": entry.shows,
            "data": entry.data,
            "GPU hours": f"{entry.gpu_hours:g}",
        }
        for entry in entries
    ]


def elsewhere_rows() -> list[dict[str, str]]:
    """Tables and figures of the papers that have no entry, with the reason."""
    return [
        {
            "paper": item.paper,
            "place": item.place,
            "shows": item.shows,
            "why, and where else": item.reason,
        }
        for item in elsewhere()
    ]


def goal_rows(outcomes: Sequence[Reproduction]) -> list[dict[str, str]]:
    """Every goal beside the paper's value and what stored outcomes reached, a mapping per row.

    The `cpu` column holds the network that stands in for the paper's at that scale; goals were
    stated for the full scale, except that of the loss against the ANN.
    """
    rows = []
    for entry in map(load_entry, entry_names()):
        for setting, networks in entry.goals.items() if entry.runs_of is None else ():
            for network, goal in networks.items():
                paper = entry.printed(setting, network)
                mine = [o for o in outcomes if o.entry == entry.name]
                row = {
                    "entry": entry.name,
                    "network": f"{setting}: {network}",
                    "paper": _summary(paper),
                    "goal": _summary(goal),
                    "full scale": _reached(mine, "full", setting, network),
                }
                at_cpu = at_scale(entry, SCALES["cpu"], entry_content(entry.name)).networks
                if setting == "cifar10" and network in at_cpu:
                    label = stand_in(entry).label
                    row["cpu scale"] = _reached(mine, "cpu", label, network)
                rows.append(row)
    heads = dict.fromkeys(head for row in rows for head in row)
    return [{head: row.get(head, "") for head in heads} for row in rows]


def _reached(outcomes: Sequence[Reproduction], scale: str, setting: str, network: str) -> str:
    for outcome in outcomes:
        for row in outcome.rows if outcome.scale == scale else ():
            if (row.setting, row.network) == (setting, network):
                return _summary({name: cell.mean for name, cell in row.cells.items()})
    return "not run"


def _summary(values: Mapping[str, float]) -> str:
    """`91.43 %, 680 steps, 68,810 spikes`, as far as known."""
    forms = {
        "accuracy": "{:.2f} %",
        "ann_accuracy": "ANN {:.2f} %",
        "loss": "{:.2f} below the ANN",
        "steps": "{:,.0f} steps",
        "spikes": "{:,.0f} spikes",
    }
    return ", ".join(form.format(values[name]) for name, form in forms.items() if name in values)


def headline(outcome: Reproduction) -> str:
    """What was run, in one line."""
    seeds = ", ".join(map(str, outcome.seeds))
    data = ", ".join(dict.fromkeys(result.dataset for result in outcome.results.values()))
    samples = ", ".join(dict.fromkeys(f"{r.samples:,}" for r in outcome.results.values()))
    said = f"Data: {data}, {samples} {outcome.split} images; " if data else ""
    return (
        f"{outcome.entry} ({outcome.paper}, {outcome.place}) at scale {outcome.scale}: "
        f"{outcome.statement}. {said}seeds: {seeds}."
    )


def comparison_of(outcome: Reproduction) -> str:
    """Codes at equal steps and at equal spikes, where an outcome has several of one network."""
    results = list(outcome.results.values())
    if len({str(result.code["name"]) for result in results}) < 3:
        return ""
    return "\n\n".join(
        [
            f"{outcome.entry}: best accuracy (%) of each code at equal steps, and at equal spikes "
            "per image (– where no run keeps within the budget):",
            markdown(equal_steps_rows(results)),
            markdown(equal_spikes_rows(results)),
        ]
    )


def markdown_of(outcomes: Sequence[Reproduction]) -> str:
    """Stored reproductions as sections of a page."""
    sections = []
    for outcome in outcomes:
        environment = outcome.environment
        training = sum(made.seconds for made in outcome.made.values())
        sections += [
            f"### {outcome.entry}, scale {outcome.scale}",
            f"{outcome.shows[0].upper()}{outcome.shows[1:]}.",
            f"{headline(outcome)} "
            + (f"Trained {training / 60:.0f} minutes (the ANN apart) on " if training else "On ")
            + f"{environment.device_name}, {environment.threads} thread(s), torch "
            f"{environment.versions.get('torch', '?')}, {environment.date[:10]}.",
            markdown(table(outcome)),
            "\n".join(f"- {line}" for line in verdicts(outcome)),
        ]
        if outcome.note:
            sections.append(f"Set-up: {outcome.note}.")
        sections += [analysis(outcome, row) for row in missed(outcome)]
    return "\n\n".join(sections)
