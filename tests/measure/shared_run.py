"""One of several processes that share an evaluation; a script run by `test_sharing`."""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_task import make_set

import firstspike as fs
from firstspike.measure.result import Result, write_results
from firstspike.training.distributed import process_group


def network(codes: bool = False) -> tuple[nn.Module, fs.SpikingNetwork]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 3)).double()
    calibration = make_set(60, 0).float_images(torch.float64)
    return model, fs.convert(model, fs.TTFS(8), calibration=calibration)


def measured(folder: Path, shared: bool) -> list[Result]:
    """A classifier with early stops, the same outputs as numbers, and a comparison."""
    model, spiking = network()
    images = make_set(101, 7)  # 101: the last batch has one image, no share for the second process
    x = images.float_images(torch.float64)
    numbers = (x, x.flatten(1)[:, :3] - 0.3)
    options = {"shared": shared, "batch_size": 20, "seed": 0}
    return [
        fs.evaluate(spiking, images, **options),
        fs.evaluate(spiking, images, decide=fs.stopping.Margin(0.05), **options),
        fs.evaluate(spiking, numbers, **options),
        *fs.compare(
            model,
            [fs.TTFS(4), fs.Rate(8)],
            images,
            calibration=x[:50],
            store=folder / "store",
            shared=shared,
        ),
    ]


if __name__ == "__main__":
    with process_group(torch.device("cpu")) as world:
        found = measured(Path(sys.argv[1]), shared=True)
    write_results(found, Path(sys.argv[1]) / f"{world.rank}.json")
