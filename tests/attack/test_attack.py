"""A small slice of the attack; `make attack` runs all of it for a stated time."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from damage import damage, edit
from fuzz import graph
from kills import convert_kill, train_kill
from surroundings import read_only, small_disk, threads, two_processes

pytestmark = pytest.mark.filterwarnings("ignore:the spiking network does not follow")


@pytest.mark.parametrize(
    ("case", "count"),
    [(edit, 4), (damage, 15), (small_disk, 3), (read_only, 1), (convert_kill, 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_gets_in_and_nothing_gets_lost(case, count, tmp_path):
    for seed in range(1_000_000, 1_000_000 + count):
        (tmp_path / str(seed)).mkdir()
        outcome = case(seed, tmp_path / str(seed))
        assert outcome.startswith("ok"), outcome


@pytest.mark.parametrize("first", range(1_000_000, 1_000_150, 30))
def test_random_graphs(first, tmp_path):
    found = [graph(seed, tmp_path) for seed in range(first, first + 30)]
    assert not [outcome for outcome in found if not outcome.startswith("ok")]


@pytest.mark.slow
def test_two_thousand_graphs(tmp_path):
    """As above, for the long suite."""
    found = [graph(seed, tmp_path) for seed in range(2000)]
    assert not [outcome for outcome in found if not outcome.startswith("ok")]
    assert found.count("ok: right") > 1500


@pytest.mark.slow
@pytest.mark.parametrize("case", [train_kill, two_processes, threads])
def test_processes_and_threads(case, tmp_path):
    outcome = case(0, tmp_path)
    assert outcome.startswith("ok"), outcome
