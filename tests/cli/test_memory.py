"""Verbs keep the memory that they free: the kernel is not asked for the same pages again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from firstspike.cli._options import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
work = lambda: np.ones(6_000_000) + np.ones(6_000_000)  # three blocks of 48 MB
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    said = {
        how: int(subprocess.check_output([sys.executable, "-P", "-c", PROGRAM, how]))
        for how in ("keep", "leave")
    }
    assert said["keep"] < 100 < 1_000 < said["leave"]
