"""Training data that is read when it is needed, and inputs that are no images."""

import numpy as np
import pytest
import torch
from small_task import make_model, make_set
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import firstspike as fs
from firstspike.data import Dataset, RandomShift, Stream, from_arrays, load_npz
from firstspike.training import TrainConfig


def weights(train, validation, **options):
    torch.manual_seed(3)
    model = make_model()
    config = TrainConfig(epochs=2, batch_size=16, learning_rate=3e-3, **options)
    return fs.fit(model, train, validation, config, progress=False), model.state_dict()


def pairs(dataset: Dataset) -> TensorDataset:
    return TensorDataset(dataset.float_images(), dataset.labels)


def test_any_data_set_trains_as_one_in_memory(train_set, validation_set) -> None:
    """The same order and augmentation, so the same weights."""
    held, wanted = weights(train_set, validation_set)
    for train, validation in (
        ((train_set.float_images(), train_set.labels), pairs(validation_set)),
        (pairs(train_set), DataLoader(pairs(validation_set), 8)),
    ):
        result, found = weights(train, validation)
        assert result.best_validation_accuracy == held.best_validation_accuracy
        if isinstance(train, tuple):
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


class Endless(IterableDataset):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self):
        while True:
            for i in range(len(self.dataset)):
                image, label = self.dataset[i]
                yield {"image": image, "label": label}


def test_loaders_and_streams_without_end(train_set, validation_set) -> None:
    loader = DataLoader(pairs(train_set), 32, shuffle=True, drop_last=True)
    result, found = weights(loader, validation_set)
    again, same = weights(loader, validation_set)
    assert result.best_validation_accuracy == again.best_validation_accuracy
    assert all(torch.equal(found[n], same[n]) for n in found)
    result, _ = weights(Stream(Endless(train_set), samples=40), validation_set)
    assert len(result.history) == 2
    assert Stream(loader).steps(1, False) == 2 and len(Stream(loader)) == 64
    with pytest.raises(ValueError, match="`samples` must say how long a pass through Endless"):
        weights(Endless(train_set), validation_set)
    with pytest.raises(TypeError, match="every epoch can begin anew, got a generator"):
        weights((batch for batch in loader), validation_set)
    with pytest.raises(TypeError, match="`train_set` must be a data set"):
        weights(train_set.float_images(), validation_set)


def test_a_killed_run_goes_on_with_a_loader(train_set, validation_set, tmp_path) -> None:
    """Batches before the checkpoint are left out, those after it are the same."""
    stream = Stream(DataLoader(pairs(train_set), 16, shuffle=True))
    passes = [
        [
            y.tolist()
            for _, y in stream.batches(
                16, generator=torch.Generator().manual_seed(5), start_batch=b
            )
        ]
        for b in (0, 2)
    ]
    assert passes[0][2:] == passes[1] and len(passes[0]) == stream.steps(16, False)


def test_labels_are_looked_at_when_they_are_read(train_set, validation_set) -> None:
    bad = TensorDataset(train_set.float_images(), train_set.labels + 9)
    with pytest.raises(ValueError, match=r"labels 0\.\.\d+, one for each output, got .* in batch"):
        weights(bad, validation_set)
    for labels, words in (
        (torch.rand(90), "one class number per image"),
        (-train_set.labels - 1, "must have labels 0"),
    ):
        with pytest.raises(ValueError, match=words):
            weights(TensorDataset(train_set.float_images(), labels), validation_set)
    with pytest.raises(TypeError, match="pairs"):
        weights(list(train_set.float_images()), validation_set)


class Flip(nn.Module):
    """As a transform of torchvision: images alone, one draw for all that it is given."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flip(-1) if torch.rand(()) < 0.5 else image


def test_augmentations_of_images_alone(train_set, validation_set) -> None:
    images = train_set.float_images()
    state = torch.get_rng_state()
    for flip in (Flip(), lambda image: Flip()(image)):
        generator = torch.Generator().manual_seed(0)
        (x, _), *_ = train_set.batches(90, augmentation=flip, generator=generator)
        flipped = torch.tensor([not torch.equal(a, b) for a, b in zip(x, images)])
        assert 20 < int(flipped.sum()) < 70  # each image by itself
        assert torch.equal(x[flipped], images[flipped].flip(-1))
    assert torch.equal(state, torch.get_rng_state())
    result, _ = weights(train_set, validation_set, augmentation=Flip())
    assert len(result.history) == 2
    weights(Stream(pairs(train_set)), validation_set, augmentation=RandomShift(1))


# ---- inputs that are no images -----------------------------------------------------------------
NETS = {
    "features": ((6,), lambda: nn.Linear(6, 8), 8),
    "series": ((2, 16), lambda: nn.Conv1d(2, 4, 3), 4 * 14),
    "volumes": ((2, 4, 5, 5), lambda: nn.Conv3d(2, 3, 3), 3 * 2 * 3 * 3),
}


@pytest.mark.parametrize("kind", NETS)
def test_signed_inputs_of_every_shape_in_every_verb(kind, tmp_path) -> None:
    shape, layer, width = NETS[kind]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    x = rng.normal(size=(80, *shape)) + np.where(y, 2.0, -2.0).reshape(-1, *[1] * len(shape))
    np.savez(
        tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30], channels_last=False
    )
    data = load_npz(tmp_path / "d.npz")
    assert data.image_shape == shape and float(data.images.min()) < 0
    mean, _ = data.channel_statistics()
    assert len(mean) == shape[0] and np.allclose(
        mean, x.swapaxes(0, 1).reshape(shape[0], -1).mean(1)
    )
    model = nn.Sequential(layer(), nn.ReLU(), nn.Flatten(), nn.Linear(width, 2))
    fs.fit(
        model,
        data,
        load_npz(tmp_path / "d.npz", False),
        TrainConfig(epochs=5, batch_size=16, learning_rate=0.01),
        progress=False,
    )
    network = fs.convert(model, fs.TTFS(32), calibration=data)
    result = fs.evaluate(network, load_npz(tmp_path / "d.npz", train=False))
    assert result.known_accuracy > 0.9 and result.agreement > 0.9
    (compared,) = fs.compare(model, [fs.TTFS(32)], data, calibration=data)
    assert compared.known_accuracy > 0.9


def test_layouts() -> None:
    x = np.random.default_rng(0).random((5, 2, 40), np.float32)
    labels = np.arange(5)
    with pytest.raises(ValueError, match="images or series is not clear"):
        from_arrays(x, labels)
    assert from_arrays(x, labels, channels_last=False).image_shape == (2, 40)
    assert from_arrays(x, labels, channels_last=True).image_shape == (40, 2)
    assert from_arrays(x[:, :, :3], labels).image_shape == (1, 2, 3)
    assert from_arrays(x.reshape(5, 1, 4, 4, 5), labels).image_shape == (1, 4, 4, 5)
    normalized = 2 * np.random.default_rng(0).random((5, 3, 8, 8), np.float32) - 1
    assert float(from_arrays(normalized, labels).images.min()) < 0
    with pytest.raises(ValueError, match="look like 8-bit values"):
        from_arrays(np.full((5, 3, 8, 8), 200.0), labels)


def test_calibration_from_streams(train_set) -> None:
    model = make_model()
    held = fs.convert(model, fs.TTFS(8), calibration=train_set)
    streamed = fs.convert(model, fs.TTFS(8), calibration=Stream(pairs(train_set)))
    assert streamed.origin["calibration_images"] == len(make_set(90, 0))
    assert torch.equal(held(train_set.float_images()), streamed(train_set.float_images()))
