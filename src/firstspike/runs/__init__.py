"""Recipes and the runs they leave behind: `train`, `load`, `Run`."""

from firstspike.runs.recipe import Recipe
from firstspike.runs.run import Run, ann_result, load, train

__all__ = ["Recipe", "Run", "ann_result", "load", "train"]
