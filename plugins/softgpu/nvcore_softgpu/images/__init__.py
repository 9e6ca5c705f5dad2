"""Firmware images: synthetic ones in the real containers, and the model's own parsers for real ones."""

from __future__ import annotations

from nvcore_softgpu.images.shelf import Shelf, open_shelf

__all__ = ["Shelf", "open_shelf"]
