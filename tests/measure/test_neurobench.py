"""Figures under NeuroBench's names are those that NeuroBench itself prints."""

from __future__ import annotations

import json

import pytest
import torch
from neurobench_golden import GOLDEN, STEPS, figures, images, model

import firstspike as fs
from firstspike.measure.result import Result


def network(steps: int = STEPS) -> fs.SpikingNetwork:
    """The golden network as ours: rate coding, scales of one, no potential at the start."""
    code = fs.Rate(steps, initial_potential=0.0)
    made = fs.convert(model(), code, calibration=images())
    for name in made.populations[1:]:
        made.neuron(name).scale.fill_(1.0)
    return made


def measured(made: fs.SpikingNetwork) -> Result:
    data = (images(), torch.zeros(7, dtype=torch.int64))
    return fs.evaluate(made, data, batch_size=4)


def test_equal_to_what_neurobench_printed() -> None:
    theirs = json.loads(GOLDEN.read_text())
    ours = dict(measured(network()).neurobench or {})
    assert ours.keys() == theirs.keys()
    assert ours["SynapticOperations"] == theirs["SynapticOperations"]
    assert ours["ActivationSparsity"] == pytest.approx(theirs["ActivationSparsity"], abs=1e-12)
    assert round(ours["ConnectionSparsity"], 4) == theirs["ConnectionSparsity"] > 0


def test_the_footprint_is_that_of_all_tensors() -> None:
    """Neurons have tensors of their own in every library; the weights' share is the same."""
    made = network()
    tensors = {id(t): t for t in (*made.parameters(), *made.buffers())}.values()
    size = measured(made).neurobench["Footprint"]
    assert size == sum(t.numel() * t.element_size() for t in tensors)
    weights = sum(p.numel() * 4 for p in model().parameters())
    theirs = json.loads(GOLDEN.read_text())["Footprint"]
    assert weights < size and weights < theirs


def test_spikes_whose_time_says_a_value_are_multiplied() -> None:
    made = fs.convert(model(), fs.TTFS(4), calibration=images())
    result = measured(made)
    operations = result.neurobench["SynapticOperations"]
    assert operations["Effective_ACs"] == 0
    assert 0 < operations["Effective_MACs"] < result.operations["synaptic"]  # zero weights are not
    dense = sum(fs.measure.opponent.profile(made).macs.values())
    assert operations["Dense"] == dense * result.latency_steps


def test_without_zero_weights_every_synapse_counts() -> None:
    full = model()
    with torch.no_grad():
        for layer in full:
            if hasattr(layer, "weight"):
                layer.weight[layer.weight == 0] = 0.1
    result = measured(fs.convert(full, fs.TTFS(4), calibration=images()))
    assert result.neurobench["ConnectionSparsity"] == 0
    effective = result.neurobench["SynapticOperations"]["Effective_MACs"]
    assert effective == pytest.approx(result.operations["synaptic"])


def test_the_stored_figures_are_what_neurobench_says_now() -> None:
    pytest.importorskip("neurobench", reason="install neurobench==2.3.0 to compare live")
    assert figures() == json.loads(GOLDEN.read_text())
