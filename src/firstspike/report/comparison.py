"""Tables and figures of a comparison of codes (after Park et al. 2020, Tables II, III, Fig. 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from firstspike.measure.compare import NORMALIZED, steps_within
from firstspike.plots import plot_accuracy_over_time, plot_tradeoff
from firstspike.report.table import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from firstspike.measure.result import Result


def comparison_rows(results: Sequence[Result], points: float = 0.3) -> list[dict[str, Any]]:
    """Accuracy, latency, spikes and normalized energy, one row per code (Table II).

    The column "0.3 from" is the first step from which accuracy stays within 0.3 points of the ANN's
    (`points`), "decided" the mean step from which a sample's answer no longer changes.
    """
    rows = []
    for r in results:
        first = steps_within(r, points)
        row = {
            "code": r.label,
            "accuracy %": percent(r.accuracy),
            "latency": number(r.latency_steps),
            f"{points:g} from": "never" if first is None else number(first),
            "decided": number(r.decision_steps_mean),
            "spikes": number(r.spikes_per_sample),
            "input": number(r.input_spikes_per_sample),
            "per neuron": f"{r.spikes_per_neuron:.3g}",
        }
        if any(other.settling for other in results):
            row["settled"] = _settled(r)
        for model, short in zip(NORMALIZED, ("TN", "SN")):
            energy = r.energy.get(model)
            row[short] = "–" if energy is None else f"{energy.total:.3f}"
        rows.append(row)
    return rows


def _settled(result: Result) -> str:
    if result.settling is None:
        return "by its windows"
    return "never" if result.settling["step"] is None else number(result.settling["step"])


def recommended(results: Sequence[Result], points: float = 0.5) -> Result:
    """The fewest spikes among the results within `points` of the best accuracy.

    Where no accuracy was measured, the first result.
    """
    measured = [r for r in results if r.accuracy is not None]
    if not measured:
        return results[0]
    best = max(r.known_accuracy for r in measured)
    near = [r for r in measured if r.known_accuracy >= best - points / 100]
    return min(near, key=lambda r: (r.spikes_per_sample, r.latency_steps))


def front_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Results that no other beats in accuracy, steps and spikes, the fewest spikes first."""
    measured = [r for r in results if r.accuracy is not None]

    def costs(r: Result) -> tuple[float, float, float]:
        return -r.known_accuracy, r.latency_steps, r.spikes_per_sample

    kept = [
        r
        for r in measured
        if not any(
            costs(o) != costs(r) and all(a <= b for a, b in zip(costs(o), costs(r)))
            for o in measured
        )
    ]
    chosen = recommended(results)
    return [
        {
            "code": r.label,
            "accuracy %": percent(r.accuracy),
            "latency": number(r.latency_steps),
            "spikes": number(r.spikes_per_sample),
            "": "recommended" if r is chosen else "",
        }
        for r in sorted(kept, key=lambda r: r.spikes_per_sample)
    ]


def operation_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Million operations per image, one row per code (Table III)."""
    names = sorted({name for r in results for name in r.operations})
    return [
        {"code": r.label}
        | {n: f"{r.operations[n] / 1e6:.4g}" if n in r.operations else "–" for n in names}
        for r in results
    ]


def equal_steps_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Best accuracy in percent of every code when its readout is asked after n steps.

    Runs that are shorter have given their answer by then; longer ones count where their accuracy
    over time was recorded.
    """
    longest = max(r.latency_steps for r in results)
    budgets = [2**k for k in range(1, 12) if 2**k <= longest]
    return _budget_rows(results, "steps", budgets, _accuracy_after)


def equal_spikes_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Best accuracy in percent of every code among runs with at most n spikes per image."""
    counts = [r.spikes_per_sample for r in results]
    ladder = [factor * 10**k for k in range(10) for factor in (1, 2, 5)]
    first = next(i for i, n in enumerate(ladder) if n >= min(counts))
    last = next(i for i, n in enumerate(ladder) if n >= max(counts))
    return _budget_rows(
        results,
        "spikes",
        ladder[first : last + 1],
        lambda r, n: r.accuracy if r.spikes_per_sample <= n else None,
    )


def _budget_rows(
    results: Sequence[Result],
    what: str,
    budgets: Sequence[int],
    accuracy: Callable[[Result, int], float | None],
) -> list[dict[str, Any]]:
    families: dict[str, list[Result]] = {}
    for r in results:
        families.setdefault(str(r.code["name"]), []).append(r)
    return [
        {f"{what} <=": name}
        | {
            f"{n:,}": percent(
                max((a for r in runs if (a := accuracy(r, n)) is not None), default=None)
            )
            for n in budgets
        }
        for name, runs in families.items()
    ]


def _accuracy_after(result: Result, steps: int) -> float | None:
    if steps >= result.latency_steps:
        return result.accuracy
    curve = result.accuracy_over_time
    return None if curve is None else curve[steps - 1]


def comparison_figures(results: Sequence[Result]) -> dict[str, Figure]:
    """Accuracy over time, and accuracy against latency, spikes and energy, by caption."""
    results = [r for r in results if r.accuracy is not None]
    ann = results[0].ann_accuracy if results else None
    best: dict[str, Result] = {}  # the most accurate of every code, the first of equals
    for r in results:
        name = str(r.code["name"])
        if r.accuracy_over_time and (
            name not in best or r.known_accuracy > best[name].known_accuracy
        ):
            best[name] = r
    curves = {r.label: r.accuracy_over_time for r in best.values()}
    figures: dict[str, Figure] = {}
    if curves:
        figures["Accuracy if the readout is asked after every step; the best run of each code."] = (
            plot_accuracy_over_time(curves, ann_accuracy=ann, log_time=True)[0]
        )
    costs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for r in results:
        family = str(r.code["name"])
        values = {"latency (steps)": r.latency_steps, "spikes per image": r.spikes_per_sample}
        if NORMALIZED[0] in r.energy:
            values["energy, TrueNorth (x reference)"] = r.energy[NORMALIZED[0]].total
        for cost, value in values.items():
            costs.setdefault(cost, {}).setdefault(family, []).append((value, r.known_accuracy))
    for cost, points in costs.items():
        figures[f"Accuracy against {cost}; the front is what nothing beats."] = plot_tradeoff(
            points, cost, ann_accuracy=ann
        )[0]
    return figures


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(str(row[h]) for h in heads) + " |" for row in rows])
