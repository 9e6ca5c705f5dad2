"""Every step of a boot and of an unload, left out: the model says which one, and says nothing when all are there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from tests.softgpu.test_device_boot import fsp_boot
from tests.softgpu.whole_rig import Whole

GSP, SEC2 = 0x110000, 0x840000
Steps = Mapping[str, Callable[[], object]]


def first_request(whole: Whole) -> None:
    whole.advance(0.1)
    if whole.receive() is not None:
        whole.send(0x41, bytes(whole.static_size))


def pair(whole: Whole, base: int, address: int) -> None:
    whole.device.bars[0].write32(base + 0x40, address & 0xFFFFFFFF)
    whole.device.bars[0].write32(base + 0x44, address >> 32)


def common(whole: Whole) -> dict[str, Callable[[], object]]:
    bar0 = whole.device.bars[0]
    return {
        "startup-unawaited": lambda: [bar0.read32(place) for place, _ in whole.model.chip.gfw],
        "dma-without-bus-master": lambda: whole.device.set_bus_master(True),
        "flush-page": whole.booter.set_flush_page,
        "first message": lambda: whole.record(0x48, whole.system_info()),
        "second message": lambda: whole.record(0x49, whole.registry()),
    }


def booter_steps(whole: Whole) -> Steps:
    bar0, booter, meta = whole.device.bars[0], whole.booter, whole.booter.meta()
    return common(whole) | {
        "gsp-not-reset": lambda: booter.reset(GSP),
        "gsp-not-started": lambda: pair(whole, GSP, whole.libos),
        "start-without-reset": lambda: booter.reset(SEC2),
        "start-without-code": lambda: booter.load(SEC2),
        "booter-mailbox": lambda: pair(whole, SEC2, meta),
        "start": lambda: bar0.write32(SEC2 + 0x100, 2),
        "version-unwritten": lambda: bar0.write32(GSP + 0x80, 0),
        "first request": lambda: first_request(whole),
    }


def fsp_steps(whole: Whole) -> Steps:
    arguments = {48: struct.pack("<Q", whole.libos)}
    return common(whole) | {
        "start": lambda: fsp_boot(whole.device, whole.booter, boot_patch=arguments),
        "version-unwritten": lambda: whole.device.bars[0].write32(GSP + 0x80, 0),
        "first request": lambda: first_request(whole),
    }


def fresh(chip: str) -> Whole:
    whole = Whole(chip)
    whole.model.function_reset()
    return whole


def names_of(steps: Callable[[Whole], Steps], chip: str) -> list[str]:
    whole = fresh(chip)
    names = list(steps(whole))
    whole.close()
    return names


def said(whole: Whole) -> set[str]:
    names = {violation.name for violation in whole.device.model.violations}
    whole.close()
    return names


NOT_NOTICED = {"start", "first request"}
"""Whoever leaves these out has not booted, which is no fault."""
MESSAGES = {"first message", "second message"}
"""Without them the firmware does not come up: it waits, as long as nothing else is asked of it."""


@pytest.mark.parametrize(("chip", "steps"), [("GA100", booter_steps), ("GH100", fsp_steps)])
def test_each_step_of_a_boot_that_is_left_out_is_named(chip, steps):
    for left_out in ("nothing", *names_of(steps, chip)):
        whole = fresh(chip)
        for name, step in steps(whole).items():
            if name != left_out:
                step()
        running = whole.gsp_runs()
        names = said(whole)
        if left_out in ("nothing", *NOT_NOTICED):
            assert names == set() and running == (left_out != "start"), left_out
        elif left_out in MESSAGES:
            assert names == set() and running == "starting", left_out
        else:
            assert left_out in names, left_out


def test_what_is_written_to_os_before_the_firmware_runs_does_not_count():
    whole = fresh("GA100")
    steps = dict(booter_steps(whole))
    early = steps.pop("version-unwritten")
    for name, step in steps.items():
        if name == "start":
            early()
        step()
    assert said(whole) == {"version-unwritten"}


def unload_steps(whole: Whole) -> Steps:
    return {
        "reset-running-gsp": lambda: whole.call(0x2F, bytes(8)),
        "unload-without-sb": lambda: whole.booter.fwsec(0x19),
        "wpr2-already-up": lambda: whole.booter.run_sec2(0xFF000000FF),
    }


def test_each_step_of_an_unload_that_is_left_out_is_named():
    for left_out in ("nothing", *names_of(unload_steps, "GA100")):
        whole = Whole("GA100")
        whole.start()
        for name, step in unload_steps(whole).items():
            if name != left_out:
                step()
        for name, step in booter_steps(again(whole)).items():
            if name not in MESSAGES:
                step()
        names = said(whole)
        assert names == ({left_out} if left_out != "nothing" else set()), left_out


def again(whole: Whole) -> Whole:
    """Queues as a driver makes them for its next boot."""
    whole.sequence = whole.number = whole.write = whole.read = 0
    for page in whole.pages:
        whole.env.memory.write(None, page, bytes(4096))
    whole._lay_out()
    whole.record(0x48, whole.system_info())
    whole.record(0x49, whole.registry())
    return whole
