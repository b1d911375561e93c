"""Reading a network file with its checksum and all checks, against reading it without.

Both variants read the same file from the page cache and build the same network. The one without
neither sums bytes nor looks at numbers and shapes.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch

from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.codes import TTFS
from firstspike.conversion import convert
from firstspike.engines import SpikingNetwork
from firstspike.models import VGG11, VGG16

TARGET = 1.3


def rows(quick: bool) -> list[Row]:
    """VGG-16 with a head of 4096, 4096 (136 MB). Quick: VGG-11 with a head of 64."""
    model = VGG11(head=(64,)) if quick else VGG16(head=(4096, 4096))
    network = convert(model, TTFS(16), calibration=torch.rand(2, 3, 32, 32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        network.save(path)
        megabytes = path.stat().st_size / 1e6
        variants = {
            "without": lambda: _unchecked(path),
            "checksum and checks": lambda: SpikingNetwork.load(path),
        }
        times = interleaved(variants, repeats=5 if quick else 31)
    size = {name: {"size": f"{type(model).__name__}, {megabytes:.0f} MB"} for name in variants}
    return ratio_rows(times, "without", {"checksum and checks": TARGET}, size)[1:]


def _unchecked(path: Path) -> SpikingNetwork:
    """The network in a file whose checksum, shapes and numbers nobody looks at."""
    with contextlib.ExitStack() as stack:
        for name in (
            "firstspike._tensors.check_finite",
            "firstspike.engines.spiking_network.check_finite",
            "firstspike.networks.rebuild.check_shapes",
        ):
            stack.enter_context(patch(name, lambda content: None))
        stack.enter_context(patch("firstspike._tensors.checksum", lambda tensors, content: _ANY))
        return SpikingNetwork.load(path)


class _Equal(str):
    """Equal to whatever a file says its checksum is."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


_ANY = _Equal()
