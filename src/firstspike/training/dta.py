"""DTA-TTFS: training with exact event-driven gradients (Wei et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from firstspike.config import is_number, register, require
from firstspike.engines import moments
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training.output_spikes import output_population, output_times
from firstspike.training.single_spike import SingleSpikeMethod

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig

Output = Literal["potential", "spike_times"]


@register
@dataclass
class DTA(SingleSpikeMethod):
    """Train a `ReLPSP` network by the derivatives of its spike times.

    Spike times follow from weights and input spikes in closed form; backward, every neuron that
    fires inside its window passes on its exact derivative, and all others pass nothing. Nothing is
    approximated in continuous time except where the derivative is unbounded (`ReLPSPNeuron`). On a
    grid of steps the gradient passes straight through the rounding of spike times.

        network = convert(model, ReLPSP(), calibration=images)
        fit(network, train_set, validation_set, config, method=DTA(dropout=0.3))

    Batch norm that is kept (`keep_batch_norm=True`, `folded(network)` afterwards) normalizes a
    potential by what it comes to when the window ends, A + W, and scales both moments alike (our
    extension: the paper's networks have none). A ResNet-20 that starts from its ANN is at chance
    without it; a VGG-11 came further without (trials in docs/training.md).

    By default the loss is cross entropy on the readout of the code, the potential when the output
    window opens. With `output="spike_times"` it is that on the negative spike times of a spiking
    output layer (eq. 8),

        L = -log(exp(-t_d) / sum_i exp(-t_i)),    d the label,

        network = with_output_spikes(network, window=10.0)
        fit(network, train_set, validation_set, config, method=DTA(output="spike_times"))

    and the class is that of the earliest spike, in training, validation and every engine. For
    output neurons that never fire see `output_times`.

    The function of the network jumps where a neuron fires only just: it adds nothing to A of its
    targets and its whole weight to W. The derivatives of the paper do not see this. With `jump`
    the step H(margin) of `ReLPSPNeuron.margin` has, backward only, the derivative of a triangle,

        dH/dm = max(0, 1 - |m| / jump) / jump,

    so that neurons near the border learn on which side to be, silent ones among them. A step then
    costs 6 weight operations in place of 5. Ours, after surrogate gradients.

    Args:
        teacher, distillation, temperature, dropout, perturbation: see `SingleSpikeMethod`; output
            spikes are neither dropped nor moved.
        output: what the loss looks at, "potential" or "spike_times".
        jump: how far from the border neurons learn of it, in units of the threshold; None is the
            paper's.

    Raises:
        ValueError: if `output` is neither, `jump` not positive, or a probability lies out of range.

    Source: Wei et al. 2023, section 3.2; Neftci et al. 2019 for surrogate gradients.
    """

    output: Output = "potential"
    jump: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jump is not None:
            fits = is_number(self.jump) and self.jump > 0
            require(
                fits, "jump", "be a positive number", self.jump, "2 is usual, None the paper's."
            )
        if self.output not in get_args(Output):
            raise ValueError(
                f"`output` must be one of {', '.join(get_args(Output))}, got {self.output!r}."
            )

    def reason_against(self, model: nn.Module) -> str | None:
        if (reason := super().reason_against(model)) is not None:
            return reason
        assert isinstance(model, SpikingNetwork)
        if model.code.rank < 2:
            return (
                f"spikes of {model.code.name} start no ramps whose crossings could be derived; use "
                "QuantizerAware() or Surrogate() for threshold tables"
            )
        if self.output == "spike_times" and output_population(model) is None:
            return (
                "its readout is a potential and no spikes, as output='spike_times' needs; train "
                "`with_output_spikes(network, window=10.0)`"
            )
        return None

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        self._output = output_population(self._network)

    def logits(self, images: Tensor) -> Tensor:
        return moments.evaluate(self._network, images, self._activate, self.jump)

    def _activate(self, name: str, u: Any) -> Tensor:
        if name != self._output:
            return super()._activate(name, u)
        self._last = u
        return self._network.neuron(name).activate(u)

    def criterion(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        if self.output == "potential":
            return super().criterion(logits, images, labels)
        assert self._output is not None
        neuron = self._network.neuron(self._output)
        times = output_times(neuron, self._last, labels)  # type: ignore[arg-type]
        del self._last
        return super().criterion(-times, images, labels)
