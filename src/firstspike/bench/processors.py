"""Kinds of processors, as far as ratios depend on them, and the target that holds for each.

A ratio is steadier than seconds, but it is not the same everywhere: where products of int8 have
instructions, or float32 is twice as wide, baseline and variant gain differently.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

AVX512, AVX2, OTHER = "AVX-512", "AVX2", "other"
X86 = (AVX512, AVX2)
# what tells kinds apart, or explains a ratio within one
_TELLING = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "bf16", "sve", "sve2"),
)

Targets = Mapping[str, float]  # kind of processor -> largest ratio aimed at


def kind_of(flags: Collection[str]) -> str:
    """The kind of a processor with these instruction sets: "AVX-512", "AVX2" or "other".

    AVX-512 without products of int8 (VNNI) counts as AVX2.

    >>> kind_of(["avx2", "avx512f", "avx512_vnni"]), kind_of(["avx2", "avx512f"]), kind_of([])
    ('AVX-512', 'AVX2', 'other')
    """
    if {"avx512f", "avx512_vnni"} <= set(flags):
        return AVX512
    return AVX2 if "avx2" in flags else OTHER


def kind_here() -> str:
    """The kind of this machine's processor."""
    from firstspike.measure.environment import describe_environment

    return kind_of(describe_environment().cpu_flags)


def target_here(targets: Targets) -> float | None:
    """The target for this machine's processor; None where none was set for its kind."""
    return targets.get(kind_here())


def described(cpu: str, flags: Collection[str]) -> str:
    """Name, kind and telling instruction sets.

    >>> described("AMD EPYC", ["avx2", "f16c", "fma"])
    'AMD EPYC, AVX2 (avx2)'
    """
    told = " ".join(flag for flag in _TELLING if flag in flags)
    return f"{cpu}, {kind_of(flags)}" + f" ({told})" * bool(told)
