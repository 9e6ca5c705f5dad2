"""Saved states: what the next process needs to take down a firmware that this one left running (field case F01).

Owns one JSON file a GPU in the state directory, replaced as a whole. Life-cycle threads. The content is the backend's; the core checks its
shape only: a file that is not what it wrote counts as none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nvcore.api.firmware import SavedState


class SavedStates:
    """The files of one host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, gpu: str) -> Path:
        return self._folder / (gpu.replace(":", "-").replace("/", "-") + ".json")

    def store(self, gpu: str, saved: SavedState) -> None:
        """Write it, durably, before the firmware starts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(gpu)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"backend": saved.backend, "version": saved.version, "data": dict(saved.data)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)

    def load(self, gpu: str) -> SavedState | None:
        """What was saved for a GPU, None without or when the file is damaged."""
        try:
            saved = SavedState(**json.loads(self._path(gpu).read_text(encoding="utf-8")))
            values = (saved.backend, saved.version, *saved.data.values())
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return saved if all(isinstance(value, str | int) for value in values) else None

    def drop(self, gpu: str) -> None:
        """The firmware was taken down."""
        self._path(gpu).unlink(missing_ok=True)
