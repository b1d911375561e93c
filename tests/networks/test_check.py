"""`check`: every node of a model, why it is refused, and what to do."""

import torch
from torch import Tensor, nn

import firstspike as fs


class Gated(nn.Module):
    """Several things that no population can say, and some that one can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)
        self.drop, self.memory, self.out = nn.Dropout(), nn.LSTM(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        y = self.drop(y * torch.sigmoid(self.norm(y)))
        steps, _ = self.memory(y.flatten(2).permute(0, 2, 1))
        return torch.softmax(self.out(steps[:, -1]), 1)


def test_all_reasons_at_once_each_with_its_line_and_advice() -> None:
    found = fs.check(Gated(), torch.rand(2, 3, 6, 6))
    assert not found.converts and found.problem is None
    assert [step.node for step in found.refused] == ["norm", "sigmoid", "mul", "memory"]
    for step in found.refused:
        assert step.why and step.advice and step.source.startswith("test_check.py:")
    became = {step.node: step.becomes for step in found.steps}
    assert became["relu"] == "spikes" and became["drop"] == "the same value"
    assert became["softmax"] == "left out" and became["out"] == "Dense"
    text = str(found)
    assert "mul: it multiplies two signals. To convert the model, keep products" in text
    assert text.endswith(f"Gated does not convert: 4 of {len(found.steps)} steps.")


def test_what_converts_is_counted_and_the_model_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fs.check(model, torch.rand(1, 2, 2))
    assert found.converts and found.populations == 1 and not found.refused
    assert "Sequential converts" in str(found)
    assert model.training and all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_refused_with_several_results_and_what_follows_of_it() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            low, high = torch.topk(x, 2).values.chunk(2, 1)
            return torch.relu(low + high)

    found = fs.check(Halves(), torch.rand(2, 4))
    assert [step.what for step in found.refused] == ["topk"]


class Doubtful(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if x.sum() > 0 else x


def test_problems_of_the_whole_model() -> None:
    example = torch.rand(2, 4)
    for model, words in (
        (Doubtful(), "decides on the values of its input"),
        (nn.Linear(4, 2), "has no ReLU"),
        (nn.Linear(5, 2), "cannot run on shape"),
    ):
        found = fs.check(model, example)
        assert not found.converts and words in str(found.problem), found.problem


def test_the_same_verdict_as_convert() -> None:
    for model in (Gated(), nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten())):
        x = torch.rand(4, 3, 6, 6)
        try:
            fs.trace(model, x)
            converts = True
        except fs.ConversionError as error:
            converts = False
            assert (fs.check(model, x).refused[0].why or "") in str(error)
        assert fs.check(model, x).converts == converts


def test_outputs_keep_their_form_whatever_is_rewritten() -> None:
    """Signed inputs, pools of potentials and moved pools rewrite the network behind tracing."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 1)
            self.pools = nn.ModuleList([nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2)])

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.pools[1](self.pools[0](self.b(self.a(x))).relu())
            return self.c(y), y.mean((2, 3))

    model, x = Two(), 2 * torch.rand(4, 3, 12, 12) - 1
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    assert [part.shape for part in network(x)] == [part.shape for part in model(x)]
    for part, wanted in zip(network.analog(x), model(x)):
        torch.testing.assert_close(part, wanted, atol=1e-5, rtol=1e-5)
