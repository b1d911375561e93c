"""`evaluate` against a recount by hand."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import firstspike as fs
from firstspike.data import from_arrays
from firstspike.measure.energy_tables import read_energy_tables


@pytest.fixture(scope="module")
def network() -> fs.SpikingNetwork:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )
    return fs.convert(model, fs.TTFS(8), calibration=torch.rand(100, 1, 8, 8))


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.rand(40, 1, 8, 8, generator=generator),
        torch.randint(5, (40,), generator=generator),
    )


def test_counts_agree_with_the_record(network, data) -> None:
    images, labels = data
    result = fs.evaluate(network, [(images, labels)])
    record = fs.simulate(network, images, "clock", over_time=True)
    hidden = [name for name in network.populations if name != "input"]
    fired = {name: record.spike_times[name].isfinite() for name in network.populations}
    spikes = sum(int(fired[name].sum()) for name in hidden)
    neurons = 4 * 36 + 16
    assert result.samples == 40
    assert result.spikes_per_sample == pytest.approx(spikes / 40)
    assert result.input_spikes_per_sample == pytest.approx(int(fired["input"].sum()) / 40)
    assert result.neurons == neurons + 5
    assert result.silent_fraction == pytest.approx(1 - spikes / (neurons * 40))
    assert result.latency_steps == 2 * 8 + 8
    right = record.logits.argmax(1) == labels
    ann = network.analog(images).argmax(1)
    assert result.accuracy == pytest.approx(float(right.float().mean()))
    assert result.ann_accuracy == pytest.approx(float((ann == labels).float().mean()))
    assert result.agreement == pytest.approx(float((ann == record.predictions).float().mean()))
    course = [float((step.argmax(1) == labels).float().mean()) for step in record.logits_over_time]
    assert result.accuracy_over_time == pytest.approx(course)
    steps = []
    for sample in range(40):
        answers = record.logits_over_time[:, sample].argmax(1).tolist()
        step = len(answers)
        while step > 1 and answers[step - 2] == answers[-1]:
            step -= 1
        steps.append(step)
    assert result.decision_steps_mean == pytest.approx(sum(steps) / 40)


def test_early_decisions_report_when_samples_stopped(network, data) -> None:
    rule = fs.stopping.Margin(0.05)
    result = fs.evaluate(network, [data], decide=rule)
    record = fs.simulate(network, data[0], "clock", decide=rule)
    assert result.accuracy == pytest.approx(float((record.predictions == data[1]).float().mean()))
    assert result.stopping_steps is not None
    assert result.stopping_steps["mean"] == pytest.approx(float(record.decided_at.double().mean()))
    assert result.stopping_steps["0.5"] == record.latency_distribution((0.5,))[0.5]
    assert fs.evaluate(network, [data]).stopping_steps is None


def test_any_source_of_labelled_images_gives_the_same_result(network, data) -> None:
    images, labels = data
    loader = DataLoader(TensorDataset(images, labels), batch_size=7)
    expected = fs.evaluate(network, from_arrays(images, labels))
    got = fs.evaluate(network, loader)
    assert got.accuracy_over_time == expected.accuracy_over_time
    assert got.layers == expected.layers


def test_samples_limits_the_images(network, data) -> None:
    images, labels = data
    result = fs.evaluate(network, [(images, labels)] * 2, samples=45)
    assert result.samples == 45


def test_bad_data_is_refused(network, data) -> None:
    images, labels = data
    with pytest.raises(ValueError, match="at least one image, got none"):
        fs.evaluate(network, [])
    with pytest.raises(ValueError, match="must be finite, batch 0 holds NaN"):
        fs.evaluate(network, [(images * float("nan"), labels)])
    with pytest.raises(
        ValueError, match=r"must have shape \(batch, 1, 8, 8\), got \(40, 1, 4, 8\)"
    ):
        fs.evaluate(network, [(images[:, :, :4], labels)])
    with pytest.raises(ValueError, match="`x` must be finite"):
        network(images * float("nan"))
    with pytest.raises(TypeError, match=r"must give pairs \(images, labels\), got a Tensor"):
        fs.evaluate(network, images)
    with pytest.raises(TypeError, match="an iterable of"):
        fs.evaluate(network, 3)
    with pytest.raises(ValueError, match=r"one target per image, got targets of shape \(7,\)"):
        fs.evaluate(network, [(images, labels[:7])])


def test_a_users_energy_table_and_memory_budget_take_part(network, data, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "mine:\n  kind: counted\n  technology: my chip\n  precision: int8\n"
        "  costs:\n    spikes: {value: 2.0, unit: pJ, source: assumed}\n"
    )
    tables = read_energy_tables(file)
    result = fs.evaluate(network, [data], engine="clock", energy=tables, memory=1)
    assert result.energy["mine"].total == pytest.approx(2.0 * result.spikes_per_sample)
    expected = fs.evaluate(network, [data])
    assert result.accuracy_over_time == expected.accuracy_over_time
