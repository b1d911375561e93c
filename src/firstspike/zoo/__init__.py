"""Trained spiking networks that travel with the package, each with what proves it.

A network is a file of tensors and its manifest: SHA-256, code, recipe, licence, and the `Result`
that was measured on the file itself, whose weights have half precision.
"""

from firstspike.zoo.entries import load, manifest, names
from firstspike.zoo.pack import add, pack
from firstspike.zoo.verification import Check, check

__all__ = ["Check", "add", "check", "load", "manifest", "names", "pack"]
