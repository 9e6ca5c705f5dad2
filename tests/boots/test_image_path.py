"""What a boot does to the big image: one copy into device-visible memory, and no hash of anything."""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.firmware_prepare import PYTHON_BAR, RESIDENT_BAR, make_images, peaks
from tests.boots.rig import CASES, slot

DIGESTS = (*sorted(hashlib.algorithms_guaranteed & set(vars(hashlib))), "new", "file_digest", "pbkdf2_hmac", "scrypt")
OURS = ("nvcore.", "nvcore_fw_gsp")


def forbid_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every digest and CRC raises from now on when the driver calls it (the model may: it plays the security processor); who called."""
    callers: list[str] = []

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith(OURS):
                callers.append(caller)
                raise AssertionError(f"{caller} hashes")
            return original(*args, **kwargs)

        return guard

    guards = {}
    for module, names in ((hashlib, DIGESTS), (zlib, ("crc32", "adler32"))):
        for name in names:
            if hasattr(module, name):
                guards[getattr(module, name)] = guarded(getattr(module, name))
                monkeypatch.setattr(module, name, guards[getattr(module, name)])
    for name, module in list(sys.modules.items()):
        if name.startswith(OURS):
            for key, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) is not None and value in guards:
                    monkeypatch.setattr(module, key, guards[value])
    return callers


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_no_hash_is_computed_on_the_boot_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chip: str, version: str) -> None:
    with slot(chip, version) as card:
        host = card.host(tmp_path, card.settings())
        callers = forbid_hashes(monkeypatch)
        try:
            host.host.start()
            assert host.settle() == "running", host.gpu.state.cause
        finally:
            monkeypatch.undo()
            host.stop()
        assert callers == []


def test_the_image_is_in_the_drivers_memory_once(tmp_path: Path) -> None:
    images = make_images(tmp_path)
    python, beyond = peaks(images)
    assert python <= PYTHON_BAR and beyond <= RESIDENT_BAR, (python, beyond)
