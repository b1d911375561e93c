"""Graphs that other programs wrote spike here as they do there; see foreign/make.py."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.chip import load_chip, map_network
from firstspike.chip.fan_out import fanout
from firstspike.chip.traffic import record_spikes, traffic_of

pytest.importorskip("nir", reason="pip install 'firstspike[nir]'")

GRAPHS = Path(__file__).parent / "foreign" / "graphs.zip"
WRITERS = {
    "spikingjelly_if": "spikingjelly",
    "spikingjelly_lif": "spikingjelly",
    "spikingjelly_cuba": "spikingjelly",
    "snntorch_leaky": "snntorch",
    "snntorch_synaptic": "snntorch",
    "norse_iaf": "norse",
    "sinabs_iaf": "sinabs",
}


@pytest.fixture(params=WRITERS)
def foreign(request, tmp_path: Path):
    """Our network, the input and the spikes that the other program counted."""
    name = request.param
    with zipfile.ZipFile(GRAPHS) as archive:
        archive.extract(f"{name}.nir", tmp_path)
        with np.load(io.BytesIO(archive.read(f"{name}.npz"))) as arrays:
            spikes = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    network = fs.from_nir(tmp_path / f"{name}.nir", steps=12, reading=WRITERS[name])
    return network, spikes.pop("x"), spikes


def test_spikes_equal_those_of_the_program_that_wrote_the_graph(foreign) -> None:
    network, x, spikes = foreign
    record = fs.simulate(network, x)
    assert len(spikes) == len(network.network.populations) == 2
    for name, theirs in spikes.items():
        assert theirs.sum() > 10
        assert torch.equal(record.spike_counts[name], theirs), name
    last = network.network.populations[-1]
    torch.testing.assert_close(record.logits, spikes[last] / 12)  # the readout sums the spikes


def test_it_is_measured_drawn_mapped_and_handed_back(foreign) -> None:
    network, x, spikes = foreign
    result = fs.evaluate(network, [(x, torch.zeros(5, dtype=torch.int64))])
    total = sum(float(s.sum()) for s in spikes.values()) / 5
    assert result.spikes_per_sample == pytest.approx(total) and result.operations["add"] > 0
    record = record_spikes(network, x)  # of every neuron at every step
    last = network.network.populations[-1]
    trains = {last: record.spike_trains[last][:, 0].bool()}
    _, axes = fs.plots.plot_raster(trains, {last: 0}, network.latency)
    assert len(axes.lines[0].get_xdata()) == 3 * int(spikes[last][0].sum())
    mapping = map_network(network, load_chip("canmore22"))
    sent = [traffic_of(record, fanout(network, mapping), sample) for sample in range(len(x))]
    assert sum(map(len, sent)) == sum(int(counts.sum()) for counts in spikes.values())
    back = fs.from_nir(fs.to_nir(network))
    again = fs.simulate(back, x)
    assert torch.equal(record.logits, again.logits) and "read from a NIR graph" in str(network)
