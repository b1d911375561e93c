"""Every way in gives the same batches; what cannot be read is refused by name."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import firstspike as fs
from firstspike.conversion import statistics
from firstspike.conversion.statistics import calibration_batches
from firstspike.data import from_arrays
from firstspike.data.batches import read_batches

X = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3


class Indexed:
    """A Hugging-Face-style set: dictionaries by index."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> dict:
        if index >= 30:
            raise IndexError
        return {"image": X[index], "label": int(Y[index])}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y))


WAYS = {
    "pair": (X, Y),
    "pair of arrays": (X.numpy(), Y.numpy()),
    "pair with a list": (X, Y.tolist()),
    "batches": [(X[:20], Y[:20]), (X[20:], Y[20:])],
    "generator": lambda: ((x, y) for x, y in zip(X.split(7), Y.split(7))),
    "TensorDataset": TensorDataset(X, Y),
    "DataLoader": DataLoader(TensorDataset(X, Y), batch_size=7),
    "iterable Dataset": Stream(),
    "dictionaries by index": Indexed(),
    "batches of dictionaries": [{"pixel_values": X, "labels": Y}],
    "one dictionary": {"x": X, "y": Y},
    "our Dataset": from_arrays(X, Y, channels_last=False),
    "list of samples' pair": [[X, Y]],
}


@pytest.mark.parametrize("name", WAYS)
def test_all_ways_in_give_the_same(name: str) -> None:
    source = WAYS[name]
    make = source if callable(source) and not hasattr(source, "__getitem__") else lambda: source
    x, y = zip(*read_batches(make(), "dataset", 8, targets=True))
    assert torch.equal(torch.cat(x), X) and torch.equal(torch.cat(y).long(), Y)
    assert torch.equal(torch.cat(list(calibration_batches(make()))), X)


def test_calibration_takes_inputs_alone_and_two_batches_in_a_tuple() -> None:
    for source in (X, X.numpy(), [X], (X[:15], X[15:]), TensorDataset(X), iter(X.split(4))):
        assert torch.equal(torch.cat(list(calibration_batches(source))), X)


REFUSED = {
    "integers": ((X * 255).byte(), TypeError, "must be floating-point images, got torch.uint8"),
    "wide integers": ([X.long()], TypeError, "must be floating-point images, got torch.int64"),
    "NaN": (X / 0 * 0, ValueError, "must be finite, batch 0 holds NaN"),
    "a number": (3, TypeError, "an iterable of batches, got int"),
    "text": (["a", "b"], TypeError, "batch 0 is a str"),
    "three parts": ([(X, Y, Y)], TypeError, "batch 0 has 3 parts"),
    "keys": ([{"photo": X}], TypeError, "got the keys photo"),
    "objects": (np.array([None, 1], dtype=object), TypeError, "of numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_every_verb(name: str) -> None:
    source, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        list(calibration_batches(source))
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    with pytest.raises(kind, match=message):
        fs.convert(model, fs.TTFS(8), calibration=source)
    if name in ("integers", "wide integers", "NaN"):
        network = fs.convert(model, fs.TTFS(8), calibration=X)
        images = source[0] if isinstance(source, list) else source
        with pytest.raises(kind, match=message):
            fs.evaluate(network, [(images, Y)])
        with pytest.raises(kind, match=message):
            fs.compare(model, [fs.TTFS(8)], [(images, Y)], calibration=X)


def test_labels_are_asked_for() -> None:
    with pytest.raises(TypeError, match="must give pairs"):
        list(read_batches(X, "dataset", targets=True))
    with pytest.raises(ValueError, match="one target per image"):
        list(read_batches([(X, Y[:3])], "dataset", targets=True))


def test_endless_calibration_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_IMAGES", 90)
    with pytest.warns(UserWarning, match="calibration stops after 90 images"):
        assert sum(len(b) for b in calibration_batches(iter(lambda: X, None))) == 90
