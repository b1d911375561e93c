"""How well a fresh conversion follows its model, and what is to blame where it does not."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from firstspike.engines import closed_form
from firstspike.engines.engine import ENGINES, able_engines
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT

_IMAGES = 32  # compared at most
_LEAST = 2  # compared where variances say nothing
_STEPS = 512  # image-steps to spend where a code has no closed form
_QUICK = ("closed_form", "early_firing")
_FEW = 8  # images below which variances say nothing


@torch.no_grad()
def check_conversion(
    network: SpikingNetwork, images: Tensor, outputs: Tensor
) -> dict[str, Any] | None:
    """Compare the network with its model on the first 32 of `images`; warn where they part.

    Of fewer than 8 images, which say too little to warn, 2 are compared.

    Args:
        outputs: the model's for `images`, (N, total).

    Returns:
        `images` compared; `error`, the root mean square difference of the outputs in units of
        their own standard deviation over these images; `agreement`, the share of images with the
        same largest logit (None for a single output). None where steps are too many to try.
    """
    quick = any(ENGINES[name].reason_against(network) is None for name in _QUICK)
    most = _IMAGES if len(images) >= _FEW else _LEAST
    x = images[: most if quick else min(most, _STEPS // network.latency)]
    if not len(x):
        return None
    expected, got = outputs[: len(x)], network.readout(x)
    spread = (expected - expected.mean(0)).square().mean().sqrt()
    distance = (got - expected).square().mean().sqrt()
    classes = network.network.form is None and expected.shape[1] > 1
    found = {
        "images": len(x),
        "error": float(distance / spread) if spread > 0 else None,
        "agreement": float((got.argmax(1) == expected.argmax(1)).double().mean())
        if classes
        else None,
    }
    poor = len(x) >= _FEW and spread > 0 and distance >= spread
    if poor and not network.code.wants_training:
        warnings.warn(
            f"the spiking network does not follow its model: on {len(x)} calibration images its "
            f"outputs differ by {float(distance / spread):.1f} times their own spread. "
            f"{_cause(network, x, expected, float(distance))}",
            stacklevel=8,
        )
    return found


def _cause(network: SpikingNetwork, x: Tensor, expected: Tensor, distance: float) -> str:
    """The likely cause, and what to do."""
    steps = len(network.window_of(INPUT))
    if "closed_form" in able_engines(network) and network.code.rank == 1:
        silent: dict[str, float] = {}
        clipped: dict[str, float] = {}

        def activate(name: str, u: Tensor) -> Tensor:
            if name == INPUT:
                return network.neuron(name).activate(u)
            values = network.network.op(name)(u)
            says = network.neuron(name).activate(u)
            active = (values > 0).sum().clamp(min=1)
            silent[name] = float(((values > 0) & (says == 0)).sum() / active)
            clipped[name] = float((values > 1.25 * says).logical_and(says > 0).sum() / active)
            return values

        alone = closed_form.logits(network, x, activate)
        if float((alone - expected).square().mean().sqrt()) > 0.5 * distance:
            return (
                f"Most of it comes from the input population: its {steps} steps are too coarse for "
                "this input. Pass more steps (`input_window` for TTFS), or inputs whose features "
                "have the same range."
            )
        for what, shares, advice in (
            ("does not fire for", silent, "a longer window"),
            ("clips", clipped, "normalization=Maximum()"),
        ):
            name = max(shares, key=shares.__getitem__)
            if shares[name] > 0.5:
                return (
                    f"Population {name!r} {what} {shares[name]:.0%} of its positive activations. "
                    f"Pass {advice}, or calibration images like those the model was trained on."
                )
    return (
        f"The likely cause is too small a window ({network.code}). Pass more steps, or "
        "normalization=LeastError() for few steps under TTFS."
    )
