"""Event files and what becomes of them."""

import numpy as np
import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.data import Events, read_folder, read_nmnist


def written(path, events) -> None:
    """Bytes as the data set has them: a loop over events, independent of the reader."""
    out = bytearray()
    for time, x, y, p in events:
        out += bytes([x, y, (p << 7) | (time >> 16), (time >> 8) & 255, time & 255])
    path.write_bytes(out)


def test_the_format(tmp_path) -> None:
    given = [
        (3, 1, 2, 0),
        (70_000, 33, 0, 1),
        (0, 0, 240, 0),
        (5, 4, 5, 1),
        (0, 0, 240, 1),
        (6, 0, 0, 0),
    ]
    written(tmp_path / "a.bin", given)
    found = read_nmnist(tmp_path / "a.bin")
    assert found.times.tolist() == [3, 70_000, 5 + 8192, 6 + 2 * 8192]
    assert found.columns.tolist() == [1, 33, 4, 0] and found.rows.tolist() == [2, 0, 5, 0]
    assert found.polarities.tolist() == [0, 1, 1, 0]
    (tmp_path / "cut.bin").write_bytes(bytes(7))
    with pytest.raises(ValueError, match=r"cut\.bin is not a file of N-MNIST events .*7 bytes"):
        read_nmnist(tmp_path / "cut.bin")
    written(tmp_path / "far.bin", [(0, 50, 1, 0)])
    with pytest.raises(ValueError, match=r"far\.bin .*`columns` must lie in 0\.\.33, got 50"):
        read_nmnist(tmp_path / "far.bin")
    written(tmp_path / "none.bin", [])
    assert read_nmnist(tmp_path / "none.bin").train(4).sum() == 0


def test_frames_trains_and_times() -> None:
    rng = np.random.default_rng(0)
    parts = [np.sort(rng.integers(0, 1000, 60)), *(rng.integers(0, n, 60) for n in (5, 4, 2))]
    parts[0][[0, -1]] = 0, 1000
    events = Events(*parts, height=4, width=5)
    counts, first = np.zeros((10, 2, 4, 5)), np.full((2, 4, 5), np.inf)
    for time, x, y, p in zip(*parts):
        step = min(int(time * 10 // 1000), 9)
        counts[step, p, y, x] += 1
        first[p, y, x] = min(first[p, y, x], step)
    assert np.array_equal(events.frames(10), counts)
    assert np.array_equal(events.frame(), counts.sum(0))
    assert np.array_equal(events.train(10), counts > 0)
    assert np.array_equal(events.spike_times(10), first)


def test_a_folder_of_recordings(tmp_path) -> None:
    """As N-MNIST lies on the disk: Train/CLASS/NUMBER.bin, and the class tells where events are."""
    rng = np.random.default_rng(0)
    for kind in ("Train", "Test"):
        for label in range(2):
            place = tmp_path / kind / str(label)
            place.mkdir(parents=True)
            for i in range(12):
                times = np.sort(rng.integers(0, 2**16, 200)).tolist()
                x, y, p = (rng.integers(0, n, 200) for n in (17, 34, 2))
                events = list(zip(times, (x + 17 * label).tolist(), y.tolist(), p.tolist()))
                written(place / f"{i:05}.bin", events)
    counts = read_folder(tmp_path, "test")
    assert counts.image_shape == (2, 34, 34) and float(counts.images[0].sum()) == 200
    spikes = read_folder(tmp_path, "train", events=lambda e: e.train(16))
    assert spikes.image_shape == (16, 2, 34, 34) and set(spikes.images.unique().tolist()) == {0, 1}
    model = nn.Sequential(
        nn.AvgPool2d(17), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    means = spikes.images.mean(1)
    config = fs.TrainConfig(epochs=30, batch_size=4, learning_rate=0.05)
    fs.fit(model, (means, spikes.labels), (means, spikes.labels), config, progress=False)
    network = fs.convert(model, fs.Rate(16), calibration=means)
    test = read_folder(tmp_path, "test", events=lambda e: e.train(16))
    result = fs.evaluate(network, test, spikes=True)
    assert (
        result.samples == 24 and result.accuracy > 0.9 and torch.equal(test.labels, counts.labels)
    )
