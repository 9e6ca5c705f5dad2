"""A software GPU with a backend in front of it, for the tests of boots and sessions."""

from __future__ import annotations

import atexit
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.events import FirmwareEvent
from nvcore.api.firmware import BootStage, OpenContext, SavedState
from nvcore.api.identity import ChipId
from nvcore.api.needs import NO_NEEDS, BootNeeds

pytest.importorskip("nvcore_softgpu")

from nvcore_fw_gsp.backend import GspBackend
from nvcore_softgpu.bus import SoftBus

CASES = [("ga100", "570.144"), ("ga100", "535.113.01"), ("gh100", "570.144")]
_names = itertools.count()


@cache
def synthetic_root() -> str:
    """A folder with small synthetic images, made once."""
    import tempfile

    from nvcore_softgpu.images.synthetic import write_images

    folder = Path(tempfile.mkdtemp(prefix="nvcore-fw-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_images(folder)
    return str(folder / "nvidia" if (folder / "nvidia").is_dir() else folder)


class Bench:
    """One GPU, opened; `open()` boots it."""

    def __init__(
        self, chip: str, version: str | None, *, root: str | None = None, vram: str = "2G", faults: Sequence[str] = (), **options: Any
    ) -> None:
        self.bus = SoftBus(clock=options.pop("device_clock", SYSTEM))
        armed = "".join(f"&fault={fault}" for fault in faults)
        self.source = f"softgpu:{chip}?vram={vram}&name=t{next(_names)}{armed}"
        self.device = self.bus.open(self.source)
        self.version = version
        vbios: Sequence[str] = options.pop("vbios", ())
        self.backend = GspBackend(lambda: [root or synthetic_root()], lambda: vbios)
        self.events: list[FirmwareEvent] = []
        self.stages: list[BootStage] = []
        self.saved: list[SavedState] = []
        self.chip = ChipId(chip.upper(), "", "")
        self.scale = options.pop("scale", 0.02)
        self.needs: BootNeeds = options.pop("needs", NO_NEEDS)
        self.clock = options.pop("clock", SYSTEM)
        assert not options

    @property
    def inspector(self) -> Any:
        return self.device.model

    @property
    def card(self) -> Any:
        return self.bus._cards[self.source]

    def context(self, saved: SavedState | None = None) -> OpenContext:
        return OpenContext(
            self.device,
            self.chip,
            self.needs,
            self.clock,
            self.events.append,
            self.stages.append,
            lambda: None,
            version=self.version,
            saved=saved,
            save=self.saved.append,
            time_scale=self.scale,
        )

    def open(self, saved: SavedState | None = None):  # type: ignore[no-untyped-def]
        return self.backend.open(self.context(saved))

    def violations(self) -> list[str]:
        return [f"{v.name}: {v.text}" for v in self.inspector.violations]


def until(claim: Callable[[], bool], what: str, limit: float = 10.0) -> None:
    """Real time: wait for another thread."""
    end = time.monotonic() + limit
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.001)


@contextmanager
def bench(chip: str, version: str | None, **options: Any) -> Iterator[Bench]:
    made = Bench(chip, version, **options)
    try:
        yield made
    finally:
        made.device.close()
        made.bus.close()
