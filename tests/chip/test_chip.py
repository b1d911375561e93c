"""Chips: the presets are sourced, bad files say what is wrong."""

from pathlib import Path

import pytest
import yaml

import firstspike.chip
from firstspike.chip import chip_names, load_chip


@pytest.mark.parametrize("name", chip_names())
def test_presets_are_whole_and_every_constant_has_an_origin(name):
    chip = load_chip(name)
    for key, constant in chip.constants.items():
        assert constant.source.strip(), key
    assert chip.cycles_per_step >= 1
    assert chip.get("energy.static") is not None or chip.get("energy.leakage") is not None


def test_the_papers_constants_are_the_papers():
    chip = load_chip("canmore22")
    for key, value in {
        "core.neurons": 1024,
        "energy.synaptic_operation": 20.0,
        "energy.hop": 100.0,
        "energy.static": 3.52e6,
    }.items():
        assert chip[key] == value and chip.constants[key].source.startswith("Wei et al. 2023")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["core"].update(sinapses={"value": 1, "source": ""}), r"unknown constants"),
        (lambda c: c["energy"].pop("hop"), r"lacks the constants \['energy.hop'\]"),
        (lambda c: c["router"]["clock"].update(unit="Hz"), r"`router.clock` must have a unit of"),
        (lambda c: c["core"]["neurons"].update(value=0), r"`core.neurons` must be a number"),
        (lambda c: c["core"]["neurons"].update(value=10.5), r"must be a whole number"),
        (lambda c: c["energy"]["hop"].update(value=float("nan")), r"`energy.hop` must be a number"),
        (lambda c: c["energy"]["hop"].pop("source"), r"must have a value, a unit and a source"),
        (lambda c: c.update(core=3), r"'core' must be a section"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, change, message):
    source = Path(firstspike.chip.__file__).parent / "chips" / "canmore22.yaml"
    content = yaml.safe_load(source.read_text())
    change(content)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message):
        load_chip(path)


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"`chip` must be one of canmore22, loihi-like.*'loihi3'"):
        load_chip("loihi3")
    chip = load_chip("canmore22")
    with pytest.raises(ValueError, match=r"unknown chip constant 'energy.hops'"):
        chip["energy.hops"]
    with pytest.raises(ValueError, match=r"gives no 'energy.neuron_update'"):
        chip["energy.neuron_update"]
    with pytest.raises(ValueError, match=r"unknown chip constant 'core.size'"):
        chip.replace(core__size=3)
    broken = tmp_path / "broken.yaml"
    broken.write_text("core: {neurons: [")
    with pytest.raises(ValueError, match=r"is not a YAML file"):
        load_chip(broken)
