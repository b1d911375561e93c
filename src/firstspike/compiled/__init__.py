"""Loops that numba compiles, and what they share. Each has torch operations beside it."""
