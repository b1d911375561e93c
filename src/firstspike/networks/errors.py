"""Errors of this package."""


class ConversionError(ValueError):
    """The model holds something without a spiking counterpart; the message says what and where."""
