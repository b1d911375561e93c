"""Energy models against every energy column the papers print, from the spikes and steps they print.

The papers round spikes to a thousandth of a million (a whole million in one case) and energies to
two to four decimals. A row passes `test_printed_digits` if the arithmetic on the printed inputs
gives the printed digits. The rows in `ROUNDED_INPUTS` do not: there the unrounded spikes matter,
and `test_one_set_of_spikes_explains_a_table` shows that spikes exist which round to the printed
ones and give the printed energies, with one and the same reference for the whole table.
"""

from __future__ import annotations

import doctest
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from firstspike.measure.energy import (
    CountedEnergy,
    EnergyReference,
    NormalizedEnergy,
    format_energy,
)
from firstspike.measure.energy_tables import (
    energy_model,
    estimate_energy,
    published_tables,
    read_energy_tables,
)

CHIPS = ("truenorth", "spinnaker")
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Row:
    code: str
    spikes: float  # millions per sample, as printed
    steps: int
    energies: tuple[float, float]  # TrueNorth, SpiNNaker, as printed
    decimals: int  # of the printed energies
    spike_unit: float = 1e-3  # millions; the last digit of the printed spikes


@dataclass(frozen=True)
class Table:
    name: str
    reference: tuple[float, int]  # millions of spikes, steps
    rows: tuple[Row, ...]


TABLES = (
    Table(
        "Park 2020, Table II, MNIST",
        (0.100, 200),
        (
            Row("rate", 0.100, 200, (1.000, 1.000), 3),
            Row("phase", 3.000, 16, (12.048, 19.228), 3),
            Row("burst", 0.251, 87, (1.265, 1.763), 3),
            Row("ttfs", 0.002, 40, (0.128, 0.085), 3),
        ),
    ),
    Table(
        "Park 2020, Table II, CIFAR-10",
        (61.949, 10_000),
        (
            Row("rate", 61.949, 10_000, (1.000, 1.000), 3),
            Row("phase", 35.196, 1_500, (0.317, 0.418), 3),
            Row("burst", 6.920, 1_125, (0.112, 0.112), 3),
            Row("ttfs", 0.069, 680, (0.041, 0.025), 3),
        ),
    ),
    Table(
        "Park 2020, Table II, CIFAR-100",
        (81.525, 10_000),
        (
            Row("rate", 81.525, 10_000, (1.000, 1.000), 3),
            Row("phase", 258.408, 8_950, (1.805, 2.351), 3),
            Row("burst", 25.074, 3_100, (0.309, 0.308), 3),
            Row("ttfs", 0.084, 680, (0.041, 0.025), 3),
        ),
    ),
    Table(
        "Park & Yoon 2021, Table 2, CIFAR-10",
        (0.193, 512),
        (
            Row("rate", 2.612, 512, (6.01, 9.01), 2),
            Row("phase", 35.196, 1_500, (75, 118), 0),
            Row("burst", 6.920, 1_125, (16, 24), 0),
            Row("tsc", 0.193, 512, (1.00, 1.00), 2),
            Row("ttfs", 0.069, 680, (0.94, 0.71), 2),
            Row("trained ttfs, E-5", 0.067, 544, (0.78, 0.60), 2),
            Row("trained ttfs, E-4", 0.049, 544, (0.74, 0.54), 2),
        ),
    ),
    Table(
        "Park & Yoon 2021, Table 2, CIFAR-100",
        (0.170, 512),
        (
            Row("rate", 2.048, 512, (5.42, 8.07), 2),
            Row("phase", 258, 8_950, (619, 979), 0, spike_unit=1),
            Row("burst", 25, 3_100, (63, 97), 0, spike_unit=1),
            Row("tsc", 0.170, 512, (1.00, 1.00), 2),
            Row("ttfs", 0.084, 680, (0.99, 0.79), 2),
            Row("trained ttfs", 0.078, 544, (0.82, 0.68), 2),
        ),
    ),
    Table(
        "Wei 2023, Table 2, CIFAR-10",
        (2.612, 512),
        (
            Row("rate", 2.612, 512, (1, 1), 4),
            Row("phase", 35.196, 1_500, (7.1476, 9.6785), 4),
            Row("burst", 6.92, 1_125, (2.3781, 2.4865), 4),
            Row("ttfs", 0.069, 680, (0.8074, 0.4950), 4),
            Row("trained ttfs", 0.067, 544, (0.6478, 0.3989), 4),
            Row("dta-ttfs", 0.073, 160, (0.1987, 0.1304), 4),
        ),
    ),
)

# (table, code, chip) whose printed digits need the unrounded spikes. The comment is the arithmetic
# on the printed inputs and, after the arrow, the print.
ROUNDED_INPUTS = {
    # 0.64 * 3.000 / 0.100 + 0.36 * 16 / 200 = 19.2288 -> 19.228
    ("Park 2020, Table II, MNIST", "phase", "spinnaker"),
    # 0.64 * 2.612 / 0.193 + 0.36 = 9.0215 -> 9.01
    ("Park & Yoon 2021, Table 2, CIFAR-10", "rate", "spinnaker"),
    # 0.4 * 258 / 0.170 + 0.6 * 8950 / 512 = 617.5 -> 619; Table II has 258.408 M: 618.5
    ("Park & Yoon 2021, Table 2, CIFAR-100", "phase", "truenorth"),
    # 0.64 * 258 / 0.170 + 0.36 * 8950 / 512 = 977.6 -> 979; with 258.408 M: 979.1
    ("Park & Yoon 2021, Table 2, CIFAR-100", "phase", "spinnaker"),
    # 0.4 * 25 / 0.170 + 0.6 * 3100 / 512 = 62.46 -> 63; Table II has 25.074 M: 62.63
    ("Park & Yoon 2021, Table 2, CIFAR-100", "burst", "truenorth"),
    # 0.64 * 25 / 0.170 + 0.36 * 3100 / 512 = 96.30 -> 97; with 25.074 M: 96.58
    ("Park & Yoon 2021, Table 2, CIFAR-100", "burst", "spinnaker"),
    # 0.4 * 35.196 / 2.612 + 0.6 * 1500 / 512 = 7.14771 -> 7.1476
    ("Wei 2023, Table 2, CIFAR-10", "phase", "truenorth"),
    # 0.64 * 6.92 / 2.612 + 0.36 * 1125 / 512 = 2.48657 -> 2.4865
    ("Wei 2023, Table 2, CIFAR-10", "burst", "spinnaker"),
}

# The one printed value that no unrounded spikes explain together with its neighbour: TrueNorth's
# 7.1476 needs S / S_ref < 13.47459, SpiNNaker's 9.6785 in the same row needs S / S_ref > 13.47463.
# The printed inputs give 13.47473, hence 7.1477: the last printed digit is one too low.
UNEXPLAINED = ("Wei 2023, Table 2, CIFAR-10", "phase", "truenorth")

CASES = [
    pytest.param(table, row, column, id=f"{table.name} | {row.code} | {CHIPS[column]}")
    for table in TABLES
    for row in table.rows
    for column in (0, 1)
]


def normalized(chip: str, reference: tuple[float, float]) -> NormalizedEnergy:
    model = energy_model(
        chip,
        reference=EnergyReference("reference", spikes=reference[0] * 1e6, steps=reference[1]),
    )
    assert isinstance(model, NormalizedEnergy)
    return model


def half_unit(row: Row) -> float:
    return 0.5 * 10.0**-row.decimals


@pytest.mark.parametrize(("table", "row", "column"), CASES)
def test_printed_digits(table: Table, row: Row, column: int) -> None:
    energy = normalized(CHIPS[column], table.reference)
    total = energy.evaluate(spikes=row.spikes * 1e6, steps=row.steps).total
    printed = row.energies[column]
    if (table.name, row.code, CHIPS[column]) in ROUNDED_INPUTS:
        assert round(total, row.decimals) != printed  # else the row belongs with the others
        assert total == pytest.approx(printed, rel=0.01)
    else:
        assert round(total, row.decimals) == printed


def explains(reference_spikes: float, table: Table, leave_out: tuple[str, ...] = ()) -> bool:
    """Whether each row has spikes that round to the printed ones and print both its energies.

    With S_ref fixed each printed energy allows an interval of S; both chips' intervals and the
    rounding interval of S must meet.
    """
    for row in table.rows:
        if (row.spikes, row.steps) == table.reference:
            continue  # the reference itself: 1 by definition
        low, high = row.spikes - row.spike_unit / 2, row.spikes + row.spike_unit / 2
        for chip, printed in zip(CHIPS, row.energies):
            if (table.name, row.code, chip) == leave_out:
                continue
            energy = normalized(chip, (reference_spikes, table.reference[1]))
            # total is affine in S; its value at S = 0 and its slope come from the model
            at_zero = energy.evaluate(spikes=0, steps=row.steps).total
            slope = energy.evaluate(spikes=1e6, steps=row.steps).total - at_zero
            low = max(low, (printed - half_unit(row) - at_zero) / slope)
            high = min(high, (printed + half_unit(row) - at_zero) / slope)
        if low > high:
            return False
    return True


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_one_set_of_spikes_explains_a_table(table: Table) -> None:
    spikes = table.reference[0]
    candidates = np.linspace(spikes - 0.0005, spikes + 0.0005, 1001)
    assert any(explains(candidate, table, UNEXPLAINED) for candidate in candidates)
    whole = any(explains(candidate, table) for candidate in candidates)
    assert whole == (table.name != UNEXPLAINED[0])


def test_the_sum_without_the_divisions_does_not_give_the_tables() -> None:
    """The formula as printed, E_dyn S + E_stat L, fails even as a ratio (Park 2020, CIFAR-10)."""
    spikes, steps, reference_spikes, reference_steps = 35.196e6, 1500, 61.949e6, 10_000
    ratio = (0.4 * spikes + 0.6 * steps) / (0.4 * reference_spikes + 0.6 * reference_steps)
    assert round(ratio, 3) == 0.568  # Table II prints 0.317


def test_wei_equation_12_with_the_printed_numbers_gives_5964_microjoules() -> None:
    # 20 pJ * 71 M + 100 pJ * 45.4 M + 3.52 uJ = 1420 + 4540 + 3.52 uJ
    estimate = energy_model("noc22-per-spike").evaluate(spikes=71e6, hops=45.4e6)
    assert estimate.total / 1e6 == pytest.approx(5963.52)
    assert estimate.terms == pytest.approx({"spikes": 1420e6, "hops": 4540e6, "static": 3.52e6})


def test_wei_reported_energy_follows_from_a_thousandth_and_a_hundredth() -> None:
    energy = energy_model("noc22-per-spike")
    # 20 pJ * 0.071 M + 100 pJ * 0.454 M + 3.52 uJ = 1.42 + 45.40 + 3.52 uJ
    total = energy.evaluate(spikes=0.071e6, hops=0.454e6).total / 1e6
    assert total == pytest.approx(50.34)
    # 50.36 is reported; the hops' last printed digit alone is worth +-0.05 uJ
    low = energy.evaluate(spikes=0.0705e6, hops=0.4535e6).total / 1e6
    high = energy.evaluate(spikes=0.0715e6, hops=0.4545e6).total / 1e6
    assert low < 50.36 < high


def test_wei_per_synaptic_operation() -> None:
    # about 1,700 synaptic operations per spike of a VGG-16: 20 pJ * 120.7 M = 2,414 uJ
    estimate = energy_model("noc22-per-synaptic-operation").evaluate(
        synaptic=0.071e6 * 1700, hops=0.454e6
    )
    assert estimate.total / 1e6 == pytest.approx(2414 + 45.4 + 3.52)


def test_horowitz_costs() -> None:
    int32, float32 = energy_model("cmos45-int32"), energy_model("cmos45-float32")
    assert int32.evaluate(multiply=1, add=1).total == pytest.approx(3.2)
    assert int32.evaluate(add=1).total == pytest.approx(0.1)
    assert float32.evaluate(multiply=1, add=1).total == pytest.approx(4.6)
    assert float32.evaluate(add=1).total == pytest.approx(0.9)


def test_datta_beerel_form_mac_first_layer_then_accumulates() -> None:
    macs, accumulates = 1.77e6, 20e6
    total = energy_model("cmos45-int32").evaluate(multiply=macs, add=macs + accumulates).total
    assert total == pytest.approx(3.2 * macs + 0.1 * accumulates)


def test_estimate_says_what_it_did_not_count() -> None:
    estimate = energy_model("cmos45-int32").evaluate(add=10, threshold_lookups=4)
    text = " | ".join(estimate.not_counted)
    assert "multiply (no count given)" in text
    assert "threshold_lookups (no cost in this table)" in text
    assert "static energy (not in this table)" in text
    assert "memory access" in text
    assert set(estimate.constants) == {"add"}
    assert "Horowitz" in estimate.constants["add"].source
    assert estimate.technology.startswith("45 nm")


def test_reference_is_named_in_the_estimate() -> None:
    reference = EnergyReference("rate, T = 200", 1e5, 200)
    estimate = energy_model("truenorth", reference=reference).evaluate(
        spikes=1e5, steps=200, synaptic=3
    )
    assert estimate.total == 1.0 and str(estimate) == "1 ×"
    assert estimate.reference == "rate, T = 200 (100,000 spikes, 200 steps)"
    assert "synaptic (only spikes and steps enter)" in estimate.not_counted


def test_estimate_energy_takes_what_the_counts_suffice_for() -> None:
    reference = EnergyReference("rate", 10, 10)
    counts = {"spikes": 5.0, "steps": 5.0}
    assert set(estimate_energy(counts)) == {"noc22-per-spike"}
    assert set(estimate_energy(counts, reference=reference)) == {"noc22-per-spike", *CHIPS}
    assert set(estimate_energy({**counts, "add": 1, "synaptic": 9}, reference=reference)) == set(
        published_tables()
    )
    assert set(estimate_energy(counts, ["spinnaker"], reference=reference)) == {"spinnaker"}


def test_assumed_is_the_source_of_plain_numbers() -> None:
    estimate = CountedEnergy({"spikes": 2.0}, static_pj=1.0).evaluate(spikes=3)
    assert estimate.total == 7.0
    assert {c.source for c in estimate.constants.values()} == {"assumed"}


def test_costs_are_frozen() -> None:
    model = CountedEnergy({"spikes": 2.0})
    with pytest.raises(TypeError):
        model.costs_pj["spikes"] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("total", "text"),
    [(0, "0 pJ"), (12.5, "12.5 pJ"), (3.2e3, "3.2 nJ"), (5963.52e6, "5.964 mJ"), (2e12, "2 J")],
)
def test_format_energy(total: float, text: str) -> None:
    assert format_energy(total) == text


# ------------------------------------------------------------------------------------- errors


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*'cmos45-int32'.*, got 'loihi9'"):
        energy_model("loihi9")


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["spikes", "steps"])
def test_bad_counts_are_refused(name: str, value: float) -> None:
    counts = {"spikes": 1.0, "steps": 1.0, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be finite and not negative, got {value}"):
        normalized("truenorth", (1, 1)).evaluate(**counts)
    with pytest.raises(ValueError, match=f"`{name}` must be finite and not negative"):
        CountedEnergy({"spikes": 1.0, "steps": 1.0}).evaluate(**counts)


def test_normalized_without_reference() -> None:
    with pytest.raises(ValueError, match=r"`reference` must be given .*'truenorth', got None"):
        energy_model("truenorth")


@pytest.mark.parametrize(("spikes", "steps"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1)])
def test_reference_must_be_positive(spikes: float, steps: float) -> None:
    with pytest.raises(ValueError, match="of the reference 'rate' must be positive"):
        EnergyReference("rate", spikes, steps)


def test_reference_must_have_a_name() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        EnergyReference(" ", 1, 1)


def test_missing_steps() -> None:
    with pytest.raises(ValueError, match=r"`steps` must be given .* got only \['spikes'\]"):
        normalized("truenorth", (1, 1)).evaluate(spikes=1)


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match=r"must sum to 1.*got 0.5 \+ 0.6 = 1.1"):
        NormalizedEnergy(0.5, 0.6, EnergyReference("rate", 1, 1))


def test_counts_without_any_cost() -> None:
    with pytest.raises(ValueError, match=r"none of the counts \['spikse'\] has a cost"):
        energy_model("noc22-per-spike").evaluate(spikse=3)


def test_no_costs_and_negative_costs() -> None:
    with pytest.raises(ValueError, match="must name a cost"):
        CountedEnergy({})
    with pytest.raises(ValueError, match=r"`costs_pj\['add'\]` must be finite and not negative"):
        CountedEnergy({"add": -0.1})
    with pytest.raises(ValueError, match="`static_pj` must be finite"):
        CountedEnergy({"add": 0.1}, static_pj=math.inf)


# ------------------------------------------------------------------------------ tables in YAML

OWN = """
mychip:
  kind: counted
  technology: 7 nm
  precision: int8
  costs:
    spikes: {value: 2, unit: nJ, source: assumed}
  static: {value: 1.5, unit: uJ, source: measured}
"""


def test_own_table(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    tables = read_energy_tables(path)
    estimate = energy_model("mychip", tables=tables).evaluate(spikes=1000)
    assert estimate.total == pytest.approx(2000e3 + 1.5e6)
    assert estimate.constants["static"].source == "measured"
    with pytest.raises(ValueError, match=r"must be one of \['mychip'\], got 'truenorth'"):
        energy_model("truenorth", tables=tables)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: counted", "kind: guessed", r"`kind` must be .*got 'guessed'"),
        ("unit: nJ", "unit: kWh", r"`spikes`: `unit` must be one of .*'pJ'.*got 'kWh'"),
        ("value: 2,", "value: -2,", "must be finite and not negative, got -2"),
        ("value: 2,", "value: .nan,", "must be finite and not negative, got nan"),
        ("value: 2,", "value: two,", "must be a number, got 'two'"),
        ("value: 2,", "value: true,", "must be a number, got True"),
        (
            ", source: assumed",
            "",
            r"missing keys \['source'\]. Add them. Write \"source: assumed\"",
        ),
        ("costs:", "cost:", r"unknown keys \['cost'\]"),
        ("spikes: {", "static: {", "must stand beside `costs`"),
        ("{value: 2, unit: nJ, source: assumed}", "2", "must be a mapping"),
        ("kind: counted", "kind: normalized", "unknown keys"),
        (OWN, "- a list", "must hold a mapping, got list"),
        (OWN, "a: {b", "is not a YAML file"),
        (OWN, "mychip: 3", "table 'mychip' must be a mapping"),
    ],
)
def test_own_table_errors(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    assert old in OWN
    path.write_text(OWN.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_energy_tables(path)


def test_own_normalized_table_must_sum_to_one(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    share = "{value: 0.7, unit: fraction of the reference, source: assumed}"
    path.write_text(f"mine: {{kind: normalized, dynamic: {share}, static: {share}}}")
    with pytest.raises(ValueError, match=r"table 'mine': `dynamic` and `static` must sum to 1"):
        read_energy_tables(path)


def test_missing_table_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_energy_tables(tmp_path / "absent.yaml")


def test_every_published_constant_has_a_source() -> None:
    for table in published_tables().values():
        assert table.technology != "assumed" and table.precision != "assumed"
        assert set(table.sources) == set(table.values)
        assert all("20" in source for source in table.sources.values())  # a year


def test_the_documentation_computes() -> None:
    result = doctest.testfile(
        str(DOCS / "energy.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted > 0 and result.failed == 0
