"""What is timed as reading without checks really makes none, and gives the same network."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike._tensors import load_tensors, save_tensors
from firstspike.bench.loading import _unchecked


def test_the_unchecked_variant_reads_what_the_checked_one_refuses(tmp_path):
    x = torch.rand(20, 4)
    path, bad = tmp_path / "n.safetensors", tmp_path / "bad.safetensors"
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    network = fs.convert(model, fs.TTFS(4), calibration=x)
    network.save(path)
    assert torch.equal(_unchecked(path)(x), network(x))
    tensors, content = load_tensors(path)
    weight = next(t for name, t in tensors.items() if name.endswith("weight"))
    weight[0, 0] = float("nan")
    save_tensors(bad, tensors, content)
    data = bytearray(bad.read_bytes())
    data[-1] ^= 1  # of a number: the checksum no longer fits
    bad.write_bytes(bytes(data))
    assert isinstance(_unchecked(bad), fs.SpikingNetwork)
    with pytest.raises(ValueError, match="checksum"):
        fs.SpikingNetwork.load(bad)
