"""Kernels of `TTFS`: what a spike at step t stands for, and how they are fitted to a network."""

from firstspike.codes.kernels import (
    Exponential,
    FunctionKernel,
    Kernel,
    KernelModule,
    Learned,
    Linear,
    PowerOfTwo,
)
from firstspike.conversion.kernel_optimization import KernelOptimization

__all__ = [
    "Exponential",
    "FunctionKernel",
    "Kernel",
    "KernelModule",
    "KernelOptimization",
    "Learned",
    "Linear",
    "PowerOfTwo",
]
