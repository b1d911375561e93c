"""The folder that model hubs take: config.json, model.safetensors and a card with results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from firstspike._files import atomic_write, sha256_of, write_json
from firstspike._reading import read_json
from firstspike.engines import default_engine, simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.exchange.door import Check, Door, compare, optional

if TYPE_CHECKING:
    from firstspike.measure.result import Result

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
HUB = "hf:"  # in front of OWNER/NAME
_FORMAT = 1


def save_pretrained(
    network: SpikingNetwork, folder: str | Path, result: Result | None = None
) -> None:
    """Write `network` as a folder: `config.json`, `model.safetensors` and a model card.

    The card holds what the network is, how to load it, and the figures of `result`; the config the
    code, the shape of the input and the SHA-256 of the tensors.
    """
    folder = Path(folder)
    network.save(folder / TENSORS)
    config = {
        "format": _FORMAT,
        "library_name": "firstspike",
        "model_type": "spiking-network",
        "code": network.code.describe(),
        "input_shape": list(network.network.input_shape),
        "output_shape": list(network.network.output.shape),
        "sha256": sha256_of(folder / TENSORS),
    }
    with atomic_write(folder / CARD, "w") as file:
        file.write(card(network, result))
    write_json(folder / CONFIG, config)


def load_pretrained(folder: str | Path) -> SpikingNetwork:
    """Read a folder that `save_pretrained` wrote.

    Raises:
        ValueError: if the folder is of something else, or its tensors differ from their checksum.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("library_name") != "firstspike":
        raise ValueError(
            f"{folder / CONFIG} must be of a firstspike network, it is not. Pass a folder that "
            "`save_pretrained` wrote."
        )
    if config.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / CONFIG} has format {config.get('format')!r}, this version reads {_FORMAT}. "
            "Use the version that wrote it."
        )
    network = SpikingNetwork.load(folder / TENSORS)
    found = sha256_of(folder / TENSORS)
    if found != config.get("sha256"):
        raise ValueError(
            f"{folder / TENSORS} must have the SHA-256 {config.get('sha256')}, got {found}. The "
            "file was changed or is not whole; copy the folder again."
        )
    return network.eval()


def push_to_hub(
    network: SpikingNetwork, name: str, result: Result | None = None, *, private: bool = False
) -> str:
    """Upload `network` to the Hugging Face hub as `owner/name`; the address of the commit.

    Raises:
        ImportError: if `huggingface_hub` is not installed (`pip install "firstspike[hub]"`).
    """
    import tempfile

    _check_name(name)
    api = optional("huggingface_hub", "hub").HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(network, folder, result)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))


def from_hub(name: str, revision: str | None = None) -> SpikingNetwork:
    """Download a network from the Hugging Face hub: the three files, nothing that runs."""
    _check_name(name)
    hub = optional("huggingface_hub", "hub")
    folder = hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG, TENSORS, CARD])
    return load_pretrained(folder)


def _check_name(name: str) -> None:
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest) or "/" in rest:
        raise ValueError(f"`name` must be OWNER/NAME, got {name!r}. Names are those of the hub.")


def card(network: SpikingNetwork, result: Result | None = None) -> str:
    """A model card: YAML for the hub, then text for people."""
    head: dict[str, Any] = {
        "library_name": "firstspike",
        "tags": ["spiking-neural-network", network.code.name.lower()],
    }
    rows: list[tuple[str, str]] = []
    if result is not None:
        head["model-index"] = [
            {
                "name": result.model,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": result.dataset, "type": result.dataset},
                        "metrics": [{"type": "accuracy", "value": result.accuracy}],
                    }
                ],
            }
        ]
        ann = "" if result.ann_accuracy is None else f" (ANN: {100 * result.ann_accuracy:.2f} %)"
        rows = [
            ("data", f"{result.dataset}, {result.split}, {result.samples:,} samples"),
            ("accuracy", f"{100 * result.known_accuracy:.2f} %{ann}"),
            ("latency", f"{result.latency_steps:g} steps"),
            ("spikes per sample", f"{result.spikes_per_sample:,.0f}, input apart"),
            ("neurons", f"{result.neurons:,}"),
        ]
    shape = " x ".join(map(str, network.network.input_shape))
    lines = ["---", json.dumps(head, indent=2), "---", "", f"# Spiking network, {network.code}", ""]
    lines += [
        f"Input {shape}; {len(network.network.populations)} hidden populations.",
        "",
        "```python",
        "import firstspike as fs",
        "",
        'network = fs.load("PATH OR hf:OWNER/NAME")',
        "```",
        "",
    ]
    if rows:
        lines += ["| | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    else:
        lines.append("No result was given when this card was written.")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Pretrained(Door):
    """A folder in the layout of the Hugging Face hub."""

    name: ClassVar[str] = "pretrained"
    ending: ClassVar[str] = ""

    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        save_pretrained(network, path)
        return ()

    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        engine = default_engine(network)
        with torch.no_grad():
            record = simulate(network, x, engine)
            back = simulate(load_pretrained(path), x, engine)
        return [compare("firstspike", record, back.spike_counts, back.logits)]

    def files(self, path: Path) -> tuple[Path, ...]:
        return tuple(path / name for name in (CONFIG, TENSORS, CARD))
