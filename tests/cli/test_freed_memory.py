"""Verbs keep the memory that they free: the kernel is not asked for the same pages again."""

import os
import platform
import subprocess
import sys

import pytest

from firstspike.cli._options import keep_freed_memory

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


def faults(how: str, **environment: str) -> int:
    """Pages that the kernel had to give, without the allocator's settings of this shell."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    clean |= {"NUMPY_MADVISE_HUGEPAGE": "0"} | environment
    command = [sys.executable, "-P", "-c", PROGRAM, how]
    return int(subprocess.check_output(command, env=clean))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    assert 10 * faults("keep") < faults("leave")


def test_settings_of_the_user_stand(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert not keep_freed_memory()
