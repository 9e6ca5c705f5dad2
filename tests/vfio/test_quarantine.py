"""What the firmware does not let go of is set aside with its reason, offered to nobody, and back after a reset of the GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvcore_vfio import operator
from nvcore_vfio.errors import BringUpFailed, NoCapacity
from nvcore_vfio.manager import Manager
from nvcore_vfio.shelf import Shelf

from .fake import FakeContext, FakeVgpu
from .test_manager import make, manager


def left(made: Manager) -> int:
    return int(made.capacity()[0]["left"])


def kept_by_the_firmware(folder: Path, verb: str, limit: int | None = None) -> tuple[FakeContext, Manager]:
    context = FakeContext(folder)
    made = manager(context, limit)
    make(made, "one", vm="web")
    make(made, "two")
    context.firmware.refuse = {"cleanup"}  # type: ignore[union-attr]
    getattr(made, verb)("one")
    context.firmware.refuse = set()  # type: ignore[union-attr]
    return context, made


def reset(context: FakeContext, made: Manager) -> None:
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    made.recovery.resume("lost")


def test_a_function_that_the_firmware_keeps_is_given_to_no_other_vgpu(tmp_path: Path) -> None:
    context, made = kept_by_the_firmware(tmp_path, "destroy")
    assert left(made) == 8  # of 10: one runs, the memory of one is in quarantine
    assert make(made, "three")["function"] == 3
    assert any("virtual function 1" in text and "cleanup refused" in text for text in context.reports)
    for _ in range(7):
        make(made)
    assert left(made) == 0 and "VF 1: in quarantine until the GPU is reset" in made.capacity()[0]["reason"]
    with pytest.raises(NoCapacity, match="quarantine"):
        make(made)


def test_a_vgpu_whose_function_is_kept_is_not_started_and_its_part_is_counted_once(tmp_path: Path) -> None:
    context, made = kept_by_the_firmware(tmp_path, "stop", limit=3)
    assert left(made) == 1
    with pytest.raises(NoCapacity, match="gpus reset"):
        made.start("one")
    assert make(made, "three")["function"] == 3 and len(context.live) == 2


@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_a_reset_of_the_gpu_gives_it_back(tmp_path: Path, verb: str) -> None:
    context, made = kept_by_the_firmware(tmp_path, verb, limit=3)
    reset(context, made)
    assert made.pool.kept == {} and left(made) == (1 if verb == "stop" else 2)
    assert {row["name"]: row["state"] for row in made.rows()} == ({"one": "stopped"} if verb == "stop" else {}) | {"two": "running"}
    if verb == "stop":
        assert made.start("one")["state"] == "running"
    while left(made):
        make(made)
    assert len(context.live) == 3 == len(context.firmware.tasks)  # type: ignore[union-attr]


def test_a_bring_up_that_fails_and_leaves_something_is_in_quarantine_too(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    context.firmware.refuse = {"configure", "cleanup"}  # type: ignore[union-attr]
    with pytest.raises(BringUpFailed, match="configure"):
        make(made)
    context.firmware.refuse = set()  # type: ignore[union-attr]
    assert list(made.pool.kept) == [1] and make(made)["function"] == 2


def test_the_doctor_names_what_is_kept_and_what_cannot_be_used(tmp_path: Path) -> None:
    context, made = kept_by_the_firmware(tmp_path, "stop")
    host: Any = SimpleNamespace(shared={"driver": SimpleNamespace(managers={"gpu": made}, shelf=Shelf(None))}, config=None)
    (check,) = operator.nvcore_doctor_checks(host)
    found = {finding.severity: finding for finding in check.run()}
    assert "VF 1 is in quarantine" in found["warning"].text and "gpus reset" in (found["warning"].remedy or "")
    assert "[2] here, [1, 2] in the firmware" in found["error"].text
    context.firmware = None
    assert any("no firmware runs" in finding.text for finding in check.run())
