"""The cheapest network within a budget: settings searched, measured and chosen honestly."""

from firstspike.tuning.budget import MEASURES, Limit
from firstspike.tuning.outcome import Tuned, Verdict
from firstspike.tuning.setting import Setting
from firstspike.tuning.space import DEFAULT, draw, read_space
from firstspike.tuning.study import Done
from firstspike.tuning.trial import Outcome
from firstspike.tuning.tune import tune

__all__ = [
    "DEFAULT",
    "MEASURES",
    "Done",
    "Limit",
    "Outcome",
    "Setting",
    "Tuned",
    "Verdict",
    "draw",
    "read_space",
    "tune",
]
