"""What outputs are for: tasks against plain loops, inference, refusals of wrong targets."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.measure.result import Result
from firstspike.measure.tasks import (
    Classes,
    Metric,
    MultiLabel,
    OneLogit,
    PixelClasses,
    Regression,
    infer_task,
)

G = torch.Generator().manual_seed(0)


def network_of(outputs: int, x: Tensor, window: int = 64) -> tuple[nn.Module, fs.SpikingNetwork]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, outputs))
    with torch.no_grad():
        model[3].bias -= model(x).median(0).values
    return model, fs.convert(model, fs.TTFS(window), calibration=x)


X = torch.rand(300, 1, 4, 4, generator=G)


def test_one_logit_is_two_classes() -> None:
    model, network = network_of(1, X)
    y = (model(X)[:, 0] > 0).long()
    result = fs.evaluate(network, [(X, y)])
    true = float(((network(X)[:, 0] > 0).long() == y).double().mean())
    assert result.task == "OneLogit" and result.ann_accuracy == 1.0
    assert result.accuracy == pytest.approx(true) == pytest.approx(result.agreement)
    assert result.accuracy > 0.95 and result.accuracy_over_time[-1] == result.accuracy
    floats = fs.evaluate(network, [(X, y[:, None].float())], task=OneLogit())
    assert floats.accuracy == result.accuracy


def test_labels_that_have_no_output_are_refused_in_every_way_they_can_be_wrong() -> None:
    _, network = network_of(26, X)
    y = torch.randint(0, 26, (300,), generator=G)
    refused = {
        "counted from one": (y + 1).clamp(min=1).index_fill(0, torch.tensor(0), 26),
        "negative": y - 1 - y.min(),
        "one-hot": F.one_hot(y, 26),
        "floating": y.float(),
        "boolean": y > 3,
        "a column too many": y[:, None].expand(-1, 2),
        "fewer than images": y[:200],
    }
    for name, labels in refused.items():
        with pytest.raises((ValueError, TypeError), match="must") as error:
            fs.evaluate(network, [(X, labels)])
        assert (name and "`dataset`" in str(error.value)) or "`task`" in str(error.value)
    message = r"labels in 0 \.\.\. 25, one per output for Classes, got label 26"
    with pytest.raises(ValueError, match=message):
        fs.evaluate(network, [(X, refused["counted from one"])])


def test_several_labels() -> None:
    model, network = network_of(6, X)
    y = (model(X) > 0).long()
    result = fs.evaluate(network, [(X[:150], y[:150]), (X[150:], y[150:])])
    said, true = (network(X) > 0).numpy(), y.bool().numpy()
    assert result.task == "MultiLabel" and result.ann_accuracy == 1.0
    assert result.accuracy == pytest.approx((said == true).mean())
    assert result.metrics["exact_match"] == pytest.approx((said == true).all(1).mean())
    hit = (said & true).sum()
    assert result.metrics["f1"] == pytest.approx(2 * hit / (said.sum() + true.sum()))
    assert result.ann_metrics == {"exact_match": 1.0, "f1": 1.0}


def test_regression_by_numpy() -> None:
    model, network = network_of(3, X)
    with torch.no_grad():
        y = model(X) + 0.1 * torch.randn(300, 3, generator=G)
    result = fs.evaluate(network, [(X[:100], y[:100]), (X[100:], y[100:])])
    with torch.no_grad():
        said = network(X).numpy()
    true = y.numpy()
    assert result.task == "Regression"
    assert result.accuracy is result.agreement is result.accuracy_over_time is None
    assert result.metrics["mean_absolute_error"] == pytest.approx(abs(said - true).mean(), rel=1e-5)
    square = ((said - true) ** 2).mean() ** 0.5
    assert result.metrics["root_mean_square_error"] == pytest.approx(square, rel=1e-5)
    each = [np.corrcoef(said[:, k], true[:, k])[0, 1] for k in range(3)]
    assert result.metrics["correlation"] == pytest.approx(np.mean(each), rel=1e-4)
    assert result.metrics["correlation_with_ann"] > 0.9
    assert Result.from_json(result.to_json()) == result


def test_a_metric_of_ones_own() -> None:
    _, network = network_of(3, X)
    task = Metric(lambda y, t: (y.argmax(1) == t).double().mean(), "hits")
    y = torch.randint(0, 3, (300,), generator=G)
    result = fs.evaluate(network, [(X, y)], task=task)
    assert result.metrics["hits"] == pytest.approx(fs.evaluate(network, [(X, y)]).accuracy)


def test_what_leaves_no_doubt_is_inferred_and_the_rest_asked() -> None:
    ints = torch.randint(0, 3, (5,))
    maps = torch.randint(0, 3, (5, 4, 4))
    assert isinstance(infer_task(torch.rand(5, 3), ints), Classes)
    assert isinstance(infer_task(torch.rand(5, 3, 4, 4), maps), PixelClasses)
    assert isinstance(infer_task(torch.rand(5, 1), torch.tensor([0, 1, 1, 0, 1])), OneLogit)
    labels = torch.tensor([[1, 1, 0]] * 5)
    assert isinstance(infer_task(torch.rand(5, 3), labels), MultiLabel)
    assert isinstance(infer_task(torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4)), Regression)
    doubtful = [
        (torch.rand(5, 3), F.one_hot(ints, 3)),
        (torch.rand(5, 1), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])),
        (torch.rand(5, 1), ints + 2),
        (torch.rand(5, 3), torch.rand(5, 2)),
    ]
    for outputs, targets in doubtful:
        with pytest.raises(ValueError, match=r"`task` must be given for outputs of shape"):
            infer_task(outputs, targets)
    with pytest.raises(TypeError, match="`task` must be a task config, got 'regression'"):
        fs.evaluate(network_of(3, X)[1], [(X, ints)], task="regression")
    with pytest.raises(ValueError, match="`decide` must go with classes"):
        fs.evaluate(
            network_of(3, X)[1], [(X, ints)], task=Regression(), decide=fs.stopping.Margin(1.0)
        )


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.map = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.fc = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.conv(x))
        return {"map": self.map(x), "class": self.fc(x.flatten(1))}


def test_maps_and_several_outputs() -> None:
    model = Heads().eval()
    network = fs.convert(model, fs.TTFS(64), calibration=X)
    with torch.no_grad():
        pixels, y = model(X)["map"].argmax(1), model(X)["class"].argmax(1)
        said = network(X)["map"].argmax(1)
    pixels[0, 0, 0] = 255
    with pytest.raises(ValueError, match=r"which of the outputs 'map', 'class' it measures"):
        fs.evaluate(network, [(X, y)])
    result = fs.evaluate(network, [(X, pixels)], task=PixelClasses(output="map", ignore=255))
    counts = pixels != 255
    overlap = [
        ((said == k) & (pixels == k)).sum() / (((said == k) & counts) | (pixels == k)).sum()
        for k in range(3)
        if (((said == k) & counts) | (pixels == k)).any()
    ]
    assert result.metrics["mean_iou"] == pytest.approx(float(torch.stack(overlap).mean()))
    assert result.ann_accuracy == pytest.approx(1.0) and result.accuracy > 0.9
    assert fs.evaluate(network, [(X, y)], task=Classes(output="class")).accuracy > 0.9


def test_clipped_inputs_are_counted_and_said() -> None:
    _, network = network_of(3, X)
    y = torch.randint(0, 3, (300,), generator=G)
    assert fs.evaluate(network, [(X, y)]).clipped_inputs == 0.0
    with pytest.warns(UserWarning, match="of the inputs lie outside the range"):
        result = fs.evaluate(network, [(3 * X, y)])
    assert result.clipped_inputs == pytest.approx(
        float((X.max() < 3 * X).double().mean()), abs=1e-3
    )
