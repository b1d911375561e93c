"""What compiles and runs written C here: gcc and clang, their sanitizers, an emulated Cortex-M4."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
_SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# Stack and entry of a Cortex-M at address 0; the machine below has 4 MiB of each memory.
_BOARD = """
MEMORY { FLASH (rx) : ORIGIN = 0, LENGTH = 4M
         RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
ENTRY(_start)
SECTIONS {
  .text : { LONG(ORIGIN(RAM) + LENGTH(RAM)) LONG(_start | 1)
            *(.text*) KEEP(*(.init)) KEEP(*(.fini)) *(.rodata*) } > FLASH
  .ARM.exidx : { __exidx_start = .; *(.ARM.exidx*) __exidx_end = .; } > FLASH
  .data : { *(.data*) } > RAM
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; end = .; __end__ = .; } > RAM
}
"""
_QEMU = (
    *("qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none"),
    *("-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel"),
)


@dataclass(frozen=True)
class Toolchain:
    """A compiler, and the machine that runs what it makes.

    Args:
        name: how it is asked for.
        compiler: its command.
        options: for the machine and for optimization.
        machine: command in front of the program; empty runs it as it is.
        most: frames that it is asked to run; None for all.
        note: what is special about it.
    """

    name: str
    compiler: str
    options: tuple[str, ...] = ("-O2",)
    machine: tuple[str, ...] = ()
    most: int | None = None
    note: str = ""

    @property
    def available(self) -> bool:
        """Whether compiler and machine are installed."""
        return all(shutil.which(tool) for tool in (self.compiler, *self.machine[:1]))

    @property
    def version(self) -> str:
        """Of the compiler, for a table."""
        said = subprocess.run([self.compiler, "-dumpversion"], capture_output=True, text=True)
        return f"{self.compiler} {said.stdout.strip()}"

    def build(self, source: Path, folder: Path) -> tuple[str, ...]:
        """The command that runs the program which reads frames, after the self test has passed.

        Raises:
            RuntimeError: if the compiler refuses the file, or a golden vector differs.
        """
        prefix = re.sub(r"\W", "_", source.stem).upper()
        link: tuple[str, ...] = ()
        if self.machine:
            (folder / "board.ld").write_text(_BOARD)
            link = ("--specs=rdimon.specs", "-T", str(folder / "board.ld"))
        for kind in ("SELF_TEST", "MAIN"):
            program = folder / f"{self.name}_{kind.lower()}"
            command = [self.compiler, *WARNINGS, *self.options, f"-D{prefix}_{kind}"]
            command += [str(source.with_suffix(".c")), *link, "-o", str(program)]
            call(command, f"compiled by {self.compiler}")
            if kind == "SELF_TEST":
                call([*self.machine, str(program)], "equal to its golden vectors")
        return (*self.machine, str(program))


TOOLCHAINS = {
    made.name: made
    for made in (
        Toolchain("gcc", "gcc"),
        Toolchain("clang", "clang"),
        Toolchain("gcc-sanitizers", "gcc", _SANITIZERS, most=20, note="sanitizers silent"),
        Toolchain("clang-sanitizers", "clang", _SANITIZERS, most=20, note="sanitizers silent"),
        Toolchain(
            "cortex-m4",
            "arm-none-eabi-gcc",
            ("-O2", "-mcpu=cortex-m4", "-mthumb"),
            _QEMU,
            most=5,
            note="Cortex-M4 in QEMU",
        ),
    )
}


def call(command: Sequence[str], what: str, frames: bytes = b"") -> bytes:
    """What a command prints for `frames`.

    Raises:
        RuntimeError: if it fails, with what it said.
    """
    done = subprocess.run(command, input=frames, capture_output=True)
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:].decode(errors="replace")
        raise RuntimeError(f"the C file must be {what}, it is not (exit {done.returncode}): {said}")
    return done.stdout
