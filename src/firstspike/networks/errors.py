"""Errors of this package."""

from __future__ import annotations


class ConversionError(ValueError):
    """The model holds something without a spiking counterpart; the message says what and where.

    Attributes:
        why: the reason alone, where one node is to blame.
        advice: what to do about it.
    """

    def __init__(self, message: str, why: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.why, self.advice = why, advice
