"""`compare`: one ANN, one data set, many codes, one ruler."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from firstspike.codes import Code, Rate
from firstspike.conversion import Normalization, convert
from firstspike.conversion.statistics import calibration_batches
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.evaluate import evaluate
from firstspike.measure.settling import Settle
from firstspike.measure.sharing import world_of

if TYPE_CHECKING:
    from firstspike.measure.result import Result

NORMALIZED = ("truenorth", "spinnaker")


def compare(
    model: nn.Module,
    codes: Sequence[Code | SpikingNetwork],
    dataset: Any,
    *,
    calibration: Any,
    normalization: Normalization | None = None,
    samples: int | None = None,
    batch_size: int = 250,
    reference: Code | None = None,
    settle: Settle | None = None,
    store: str | Path | None = None,
    name: str | None = None,
    seed: int | None = None,
    on_result: Callable[[Result], None] | None = None,
    progress: bool = False,
    **measuring: Any,
) -> list[Result]:
    """Convert `model` to every code and measure each network on the same images.

    Energies are normalized to one of the results, named in each estimate: the `reference`, or the
    rate code with the most steps. Without a rate code, results carry no normalized energy.

    Args:
        codes: codes to convert to, or networks that are spiking already (trained ones, say).
        dataset: as for `evaluate`; the same images for all.
        calibration, normalization: as for `convert`.
        settle: as for `evaluate`, for the codes that repeat their values; others are measured as
            they are.
        reference: code of the result that normalized energies are relative to.
        store: folder where each finished result is kept; called again with the same model, data
            (to the pixel), calibration images and code, the result is read from there.
        measuring: `memory`, `energy` and `shared` of `evaluate`.
        on_result: called with every result as soon as it is there.
        model: trained ANN, as for `convert`; it is not changed.
        samples: only the first so many.
        batch_size: images at a time.
        name: of the model in the results; by default its class.
        seed: recorded in the results, and that of random inputs.
        progress: whether a bar is shown.

    Returns:
        One result per code, in their order.

    Raises:
        ValueError: if there are no codes or the reference is not among them.
    """
    if not codes:
        raise ValueError("`codes` must hold at least one code, got none. Pass e.g. [TTFS(16)].")
    if store is not None:
        calibration = list(calibration_batches(calibration))  # read twice: hashed, then used
        setting = _hash_setting(
            dataset,
            calibration,
            [repr(normalization), samples, seed, repr(measuring.get("energy")), repr(settle)],
        )
    results = []
    world = world_of(bool(measuring.get("shared")))
    for code in codes:
        path = None
        if store is not None:
            path = Path(store) / f"{_hash_network(model, code, setting)}.json"
        result = world.from_first(lambda path=path: _stored(path))  # type: ignore[misc]
        if result is None:
            network = (
                code
                if isinstance(code, SpikingNetwork)
                else convert(model, code, calibration=calibration, normalization=normalization)
            )
            result = evaluate(
                network,
                dataset,
                samples=samples,
                batch_size=batch_size,
                model=name or type(model).__name__,
                seed=seed,
                settle=settle if network.code.settles else None,
                progress=progress,
                **measuring,
            )
            if path is not None and world.first:
                result.to_json(path)
        results.append(result)
        if on_result is not None and world.first:
            on_result(result)
    return with_normalized_energy(results, reference)


def with_normalized_energy(
    results: Sequence[Result], reference: Code | None = None
) -> list[Result]:
    """The results with TrueNorth and SpiNNaker energies relative to one of them.

    E = E_dyn S / S_ref + E_stat L / L_ref (Park et al. 2020, section IV-B), with S the spikes of
    hidden neurons and L the latency in steps.
    """
    from firstspike.measure.energy import EnergyReference
    from firstspike.measure.energy_tables import estimate_energy

    if reference is not None:
        wanted = reference.describe()
        chosen = next((r for r in results if r.code == wanted), None)
        if chosen is None:
            raise ValueError(f"`reference` must be one of the codes, got {reference}.")
    else:
        rates = [r for r in results if r.code["name"] == Rate.__name__]
        chosen = max(rates, key=lambda r: r.latency_steps, default=None)
        if chosen is None:
            return list(results)
    base = EnergyReference(chosen.label, chosen.spikes_per_sample, chosen.latency_steps)
    made = []
    for result in results:
        counts = {"spikes": result.spikes_per_sample, "steps": result.latency_steps}
        energy = estimate_energy(counts, NORMALIZED, reference=base)
        made.append(result.model_copy(update={"energy": {**result.energy, **energy}}))
    return made


def steps_within(result: Result, points: float = 0.3) -> int | None:
    """First step from which accuracy stays within `points` of the ANN's; None if it never does."""
    if result.accuracy_over_time is None or result.ann_accuracy is None:
        return None
    floor = result.ann_accuracy - points / 100 - 1e-12
    first = None
    for step, accuracy in enumerate(result.accuracy_over_time, start=1):
        if accuracy < floor:
            first = None
        elif first is None:
            first = step
    return first


def _hash_setting(dataset: Any, calibration: Sequence[Tensor], options: list[Any]) -> bytes:
    """Everything but the network that a stored result depends on, the pixels included."""
    from firstspike import __version__

    if not (hasattr(dataset, "images") and hasattr(dataset, "labels")):
        raise TypeError(
            f"`dataset` must be a firstspike Dataset when results are stored, got "
            f"{type(dataset).__name__}: others cannot be told apart. Wrap it with "
            "`firstspike.data.from_loader`, or pass store=None."
        )
    digest = hashlib.sha256()
    for tensor in (dataset.images, dataset.labels, *calibration):
        digest.update(_bytes(tensor))
    facts = [dataset.name, dataset.split, *options, __version__]
    digest.update(json.dumps(facts).encode())
    return digest.digest()


def _hash_network(model: nn.Module, code: Code | SpikingNetwork, setting: bytes) -> str:
    """Name of a stored result: the setting, the code and all weights."""
    digest = hashlib.sha256(setting)
    for name, tensor in (code if isinstance(code, SpikingNetwork) else model).state_dict().items():
        digest.update(name.encode() + _bytes(tensor))
    described = code.code.describe() if isinstance(code, SpikingNetwork) else code.describe()
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()[:20]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _stored(path: Path | None) -> Result | None:
    from firstspike.measure.result import Result

    if path is None or not path.is_file():
        return None
    try:
        return Result.from_json(path)
    except ValueError as error:
        warnings.warn(f"a stored result is measured again: {error}", stacklevel=3)
        return None
