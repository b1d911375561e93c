"""The whole way: `run_hardware`, its tables, pictures and command."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import firstspike as fs
from firstspike.chip import (
    Mapping,
    fanout,
    hardware_rows,
    hardware_tables,
    load_chip,
    map_network,
    record_spikes,
    run_hardware,
    simulate_noc,
    stream_of,
    traffic_of,
)
from firstspike.plots.accuracy_bits import plot_accuracy_bits
from firstspike.plots.energy_breakdown import plot_energy_breakdown
from firstspike.plots.hardware import save_hardware_figures
from firstspike.plots.mesh import plot_core_occupancy, plot_link_load

CHIP = load_chip("canmore22").replace(core__neurons=64)


@pytest.fixture(scope="module")
def cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 40), nn.ReLU(), nn.Linear(40, 10),
    )  # fmt: skip
    x = torch.rand(8, 1, 8, 8)
    return model, x, torch.arange(8)


def test_report_is_consistent_and_plain(cnn, tmp_path):
    model, x, labels = cnn
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    report = run_hardware(network, x, labels, chip=CHIP, bits=4)
    record = fs.simulate(report.network, x, "closed_form")
    spikes = sum(float(c.sum()) for c in record.spike_counts.values()) / len(x)
    assert report.counts["spikes"] == pytest.approx(spikes)
    assert report.counts["neurons"] == 8 * 64 + 40 + 10
    assert report.loads.hops == pytest.approx(report.noc["hops"])
    assert report.baseline_hops >= report.loads.hops
    assert report.network.origin["quantization"]["bits"] == 4 == report.mapping.bits
    assert "quantization" not in network.origin  # the caller's network is left alone
    accuracy = float((record.predictions == labels).double().mean())
    assert report.accuracy == {"ideal": accuracy}
    terms = report.energy["per spike"].terms
    assert terms["hops"] == pytest.approx(100 * report.loads.hops)
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["mapping"]["cores_used"] == len(report.mapping.groups)
    console = Console(width=120, record=True, file=io.StringIO())
    for table in hardware_tables(report):
        console.print(table)
    printed = console.export_text()
    assert "hops per frame" in printed and "per synaptic operation" in printed
    paths = save_hardware_figures(report, tmp_path)
    assert [p.name for p in paths] == ["link_load.svg", "core_occupancy.svg", "energy.svg"]
    assert all(p.read_text().lstrip().startswith("<?xml") for p in paths)


def test_a_given_mapping_is_used_as_it_is_and_late_packets_change_the_report(cnn):
    model, x, labels = cnn
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    first = run_hardware(network, x, labels, chip=CHIP, placement="row-major", routing="unicast")
    assert first.hop_reduction == pytest.approx(1.0)
    slow = CHIP.replace(step__duration=20.0)  # ten cycles a step
    again = run_hardware(network, x, labels, chip=slow, mapping=first.mapping, late_samples=2)
    assert again.mapping == first.mapping
    assert again.noc["late_deliveries"] > 0 and again.accuracy["late_samples"] == 2
    assert 0 < again.accuracy["late_fraction"] < 1
    with pytest.raises(ValueError, match=r"a core of 'canmore22' has 10"):
        run_hardware(network, x, chip=CHIP.replace(core__neurons=10), mapping=first.mapping)


def test_frames_in_a_stream_share_links_and_static_energy(cnn):
    model, x, _ = cnn
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)  # latency 24
    leaky = CHIP.replace(energy__leakage=5.0, energy__neuron_update=1.0)
    report = run_hardware(network, x[:3], chip=leaky, placement="row-major", stream=2)
    stream = report.stream
    assert (stream.interval, report.counts["steps"]) == (8, 24)
    assert stream.frame_ns == pytest.approx(report.frame_ns / 3)
    assert stream.frames_per_second == pytest.approx(1e9 / stream.frame_ns)
    assert stream.noc["hops"] == pytest.approx(report.noc["hops"])
    assert stream.noc["late_deliveries"] == 0
    assert stream.noc["congestion_mean_cycles"] >= report.noc["congestion_mean_cycles"]
    for reading, alone in report.energy.items():
        factor = {"static": 1 / 3, "leakage": 1 / 3, "neuron_updates": 2 / 3}
        for term, energy in stream.energy[reading].terms.items():
            assert energy == pytest.approx(alone.terms[term] * factor.get(term, 1)) and energy > 0
    titles = [table.title for table in hardware_tables(report)]
    assert len(titles) == len(set(titles)) == len(hardware_rows(report)) == 4
    assert json.loads(json.dumps(report.to_dict()))["stream"]["interval"] == 8


def test_frames_far_apart_do_not_meet(cnn):
    model, x, _ = cnn
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    mapping = map_network(network, CHIP)
    fan, record = fanout(network, mapping), record_spikes(network, x[:2])
    frames = [traffic_of(record, fan, i) for i in range(2)]
    apart = simulate_noc(stream_of(frames, 30), fan, mapping, CHIP)
    alone = [simulate_noc(frame, fan, mapping, CHIP) for frame in frames]
    assert sorted(apart.latency) == sorted([*alone[0].latency, *alone[1].latency])
    together = simulate_noc(stream_of(frames, 8), fan, mapping, CHIP, cycles_per_step=40)
    assert together.congestion.sum() > sum(
        simulate_noc(frame, fan, mapping, CHIP, cycles_per_step=40).congestion.sum()
        for frame in frames
    )


@pytest.mark.parametrize("code", [fs.Rate(steps=10), fs.TTFS(8, offset=4)], ids=str)
def test_codes_without_closed_form_run_too(cnn, code):
    model, x, _ = cnn
    network = fs.convert(model, code, calibration=x)
    report = run_hardware(network, x[:2], chip=CHIP, placement="spectral", bits=4)
    record = fs.simulate(report.network, x[:2], "clock")
    spikes = sum(float(c.sum()) for c in record.spike_counts.values()) / 2
    assert report.counts["spikes"] == pytest.approx(spikes)
    assert report.noc["deliveries"] > 0


def test_bad_arguments_are_refused(cnn):
    model, x, _ = cnn
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    for arguments, message in (
        ({"images": x[:0]}, r"`images` must hold at least one image"),
        ({"placement": "best"}, r"`placement` must be one of row-major, spectral, annealed"),
        ({"routing": "flood"}, r"`routing` must be one of multicast, unicast"),
        ({"mesh": (1, 1)}, r"`mesh` must hold \d+ cores, got 1 x 1 = 1\. A mesh of"),
        ({"chip": "x"}, r"`chip` must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            run_hardware(network, **{"images": x, "chip": CHIP, **arguments})


def test_plots_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"`links` must have the shape \(height, width, 4\)"):
        plot_link_load(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"`neurons` must have the shape \(height, width\)"):
        plot_core_occupancy(torch.zeros(3), 10)
    with pytest.raises(ValueError, match=r"`capacity` must be positive, got 0"):
        plot_core_occupancy(torch.zeros(3, 3), 0)
    with pytest.raises(ValueError, match=r"`terms` must hold at least one entry"):
        plot_energy_breakdown({})
    with pytest.raises(ValueError, match=r"energies of at least 0"):
        plot_energy_breakdown({"a": {"hops": -1.0}})
    figure, ax = plot_accuracy_bits({"a": [(2, 0.5), (4, 0.9)]}, float_accuracy=0.95)
    assert len(ax.get_lines()) == 2 and figure is ax.figure


def test_command(cnn, tmp_path):
    import typer

    from firstspike.cli.hardware import hardware

    app = typer.Typer()
    app.command()(hardware)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)
    )  # fmt: skip
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=cnn[1])
    network.save(tmp_path / "n.safetensors")
    arguments = ["--network", str(tmp_path / "n.safetensors"), "--data", "digits", "--bits", "4"]
    arguments += ["--samples", "3", "--mesh", "3x2", "--json", str(tmp_path / "r.json")]
    arguments += ["--stream", "1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["stream"]["interval"] == 16  # one potential: a frame every two windows
    assert "frames per second" in result.output
    assert content["samples"] == 3 and content["mapping"]["width"] == 3
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"mapping.json", "hardware.json", "link_load.svg", "network.safetensors"} <= files
    Mapping.load(
        tmp_path / "out" / "mapping.json",
        fs.SpikingNetwork.load(tmp_path / "out" / "network.safetensors"),
    )
    wrong = CliRunner().invoke(app, [*arguments, "--mesh", "three"])
    assert wrong.exit_code != 0 and "`--mesh` must look like 17x17" in str(wrong.exception)
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    assert "Example: firstspike hardware" in text


def test_synaptic_operations_are_those_of_evaluate() -> None:
    """Pools whose windows overlap unevenly, and max pools: one count for measures and chip."""
    torch.manual_seed(0)
    x, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 4, 2),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    counted = fs.evaluate(network, [(x, labels)], engine="clock").operations["synaptic"]
    assert run_hardware(network, x, labels).counts["synaptic_operations"] == pytest.approx(counted)
