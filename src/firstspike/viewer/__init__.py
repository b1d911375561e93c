"""The life of a spiking network as one HTML page that opens from disk: `view`."""

from firstspike.viewer.page import Viewer, view

__all__ = ["Viewer", "view"]
