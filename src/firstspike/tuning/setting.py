"""A setting: everything that is chosen on the way from a model to a spiking network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from firstspike.codes import Code, Kernel
from firstspike.config import build
from firstspike.conversion import Calibration, KernelOptimization, Normalization
from firstspike.engines.early_exit import Margin

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

FULL_BITS = 32  # of weights that are not quantized


@dataclass(frozen=True)
class Setting:
    """What a network was made with.

    Args:
        code, normalization, kernel_optimization: as for `convert`.
        bits: of weights, `Quantization(bits)`; None leaves them as they are.
        margin: `Margin(margin)` stops samples early; None waits for the last step.
    """

    code: Code
    normalization: Normalization
    kernel_optimization: KernelOptimization | None = None
    bits: int | None = None
    margin: float | None = None

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Setting:
        """From plain data as `draw` makes it.

        Raises:
            ValueError: if the parts break a rule of theirs.
        """
        optimization = plain.get("kernel_optimization")
        return cls(
            build(Code, plain["code"]),
            build(Normalization, plain["normalization"]),
            None if optimization is None else build(KernelOptimization, optimization),
            None if plain.get("weights") is None else int(plain["weights"]["bits"]),
            None if plain.get("decide") is None else float(plain["decide"]["margin"]),
        )

    def network(self, calibration: Calibration) -> SpikingNetwork:
        """The network, with the statistics that all settings share."""
        network = calibration.convert(
            self.code,
            normalization=self.normalization,
            kernel_optimization=self.kernel_optimization,
            check=False,
        )
        if self.bits is None:
            return network
        from firstspike.quantized import Quantization, quantize

        return quantize(network, Quantization(self.bits))

    @property
    def decide(self) -> Margin | None:
        """The rule that stops samples early."""
        return None if self.margin is None else Margin(self.margin)

    def python(self) -> str:
        """The lines that make the same network, with `model`, `images` and `dataset` at hand."""
        options = f"normalization={said(self.normalization, 'fs.scales.')}"
        if self.kernel_optimization is not None:
            options += f", kernel_optimization={said(self.kernel_optimization, 'fs.kernels.')}"
        lines = [
            f"code = {said(self.code, 'fs.codes.')}",
            f"network = fs.convert(model, code, calibration=images, {options})",
        ]
        if self.bits is not None:
            quantization = f"fs.quantized.Quantization({self.bits})"
            lines.append(f"network = fs.quantized.quantize(network, {quantization})")
        rule = "" if self.margin is None else f", decide=fs.stopping.Margin({self.margin!r})"
        return "\n".join([*lines, f"result = fs.evaluate(network, dataset{rule})"])

    def __str__(self) -> str:
        parts = [said(self.code, digits=4), said(self.normalization, digits=4)]
        parts += ["kernels optimized"] if self.kernel_optimization is not None else []
        parts += [f"{self.bits} bits"] if self.bits is not None else []
        parts += [f"margin {self.margin:.3g}"] if self.margin is not None else []
        return ", ".join(parts)


def said(config: Any, space: str = "", digits: int | None = None) -> str:
    """A configuration as in Python, without the parameters that have their default.

    Args:
        space: where its class stands, `"fs.codes."`; classes of others go by their bare name.
        digits: of floats; None writes them to the last bit.

    >>> from firstspike.codes import TTFS, Linear
    >>> said(TTFS(8, Linear(), offset=4), "fs.codes.")
    'fs.codes.TTFS(window=8, kernel=fs.kernels.Linear(), offset=4)'
    """
    parts = []
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value == default:
            continue
        if is_dataclass(value):
            kernel = space and isinstance(value, Kernel)
            text = said(value, "fs.kernels." if kernel else space, digits)
        else:
            number = isinstance(value, float) and digits is not None
            text = f"{value:.{digits}g}" if number else repr(value)
        parts.append(f"{field.name}={text}")
    own = type(config).__module__.startswith("firstspike.")
    return f"{space if own else ''}{type(config).__name__}({', '.join(parts)})"
