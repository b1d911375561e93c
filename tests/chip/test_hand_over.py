"""What leaves for other tools says what our own routing says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.chip import load_chip, map_network
from firstspike.chip.fan_out import fanout
from firstspike.chip.hand_over import (
    HandOver,
    hand_over,
    noxim_table,
    save_hand_over,
    trace_text,
)
from firstspike.chip.routing import link_loads
from firstspike.chip.traffic import record_spikes, traffic_of


@pytest.fixture(scope="module")
def mapped():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)),
    )
    x = torch.rand(4, 1, 16, 16)
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    chip = load_chip("canmore22").replace(**{"core.neurons": 200.0})
    return network, map_network(network, chip), x


def test_it_comes_back_and_fits_its_schema(mapped, tmp_path: Path) -> None:
    network, mapping, _ = mapped
    made = hand_over(network, mapping)
    made.save(tmp_path / "chip.json")
    assert HandOver.load(tmp_path / "chip.json") == made
    content = json.loads((tmp_path / "chip.json").read_text())
    jsonschema.validate(content, HandOver.model_json_schema())
    assert sum(core.neurons for core in made.cores) == sum(
        int(np.prod(shape)) for shape in mapping.layers.values()
    )


def test_packets_are_those_of_the_routing(mapped) -> None:
    network, mapping, x = mapped
    heard = fanout(network, mapping)
    traffic = traffic_of(record_spikes(network, x), heard)
    lines = trace_text(traffic, heard, mapping).splitlines()[1:]
    triples = [tuple(map(int, line.split())) for line in lines]
    assert [t[0] for t in triples] == sorted(t[0] for t in triples)
    width = mapping.width
    hops = sum(abs(a % width - b % width) + abs(a // width - b // width) for _, a, b in triples)
    loads = link_loads(heard, mapping, traffic.counts(len(heard)), "unicast")
    assert hops == loads.hops > 1000
    made = hand_over(network, mapping)
    expected = sum(len(made.routes[k].targets) for k in traffic.klass)
    assert len(triples) == expected
    rates = [line.split() for line in noxim_table(traffic, heard, mapping).splitlines()[1:]]
    sent = sum(float(rate) for _, _, rate in rates) * traffic.steps
    assert sent == pytest.approx(sum(a != b for _, a, b in triples))


def test_the_folder_of_a_hand_over_says_how_it_was_checked(mapped, tmp_path: Path) -> None:
    network, mapping, x = mapped
    said = save_hand_over(tmp_path, network, mapping, x[:1])
    found = re.search(r"read back equal; .*: ([0-9,]+) packets, ([0-9,]+) hops, (.*) by our", said)
    assert found and found[2] == found[3]
    content = json.loads((tmp_path / "hand_over.json").read_text())
    jsonschema.validate(content, json.loads((tmp_path / "hand_over.schema.json").read_text()))
    lines = (tmp_path / "trace.txt").read_text().splitlines()
    assert f"{len(lines) - 1:,}" == found[1]
    assert (tmp_path / "noxim.txt").read_text().startswith("% source target")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("routes"), "routes"),
        (lambda c: c["cores"].append(c["cores"][0]), "hold one group"),
        (lambda c: c["routes"][0].update(targets=[10**6]), "must lead to cores in use"),
        (lambda c: c["layers"][0]["routes"].pop(), "a route for each neuron"),
        (lambda c: c.update(surprise=1), "surprise"),
    ],
)
def test_broken_files_are_refused(mapped, tmp_path: Path, change, message: str) -> None:
    network, mapping, _ = mapped
    content = hand_over(network, mapping).model_dump(mode="json")
    change(content)
    (tmp_path / "chip.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        HandOver.load(tmp_path / "chip.json")
