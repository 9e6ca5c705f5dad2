"""What the model does when the host has no descriptor left, or gave it a wrong one; and when a fault's argument is none."""

from __future__ import annotations

import os

import pytest

from nvcore.api.errors import OutOfResources
from nvcore_softgpu import memory as memory_module
from nvcore_softgpu.faults import FAULTS, ArmedFaults, UnknownFault
from nvcore_softgpu.journal import Journal
from nvcore_softgpu.memory import PhysicalMemory
from nvcore_softgpu.ports import Aperture
from tests.softgpu.device_kit import make_card

MIB = 1 << 20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("step", ["memfd_create", "ftruncate", "dup", "pwrite"])
def test_a_share_that_fails_keeps_no_descriptor_and_changes_nothing(monkeypatch, step):
    memory = PhysicalMemory(64 * MIB, Journal())
    memory.write(Aperture.VRAM, 5, b"kept")

    def refuse(*_: object) -> int:
        raise OSError(24, "no descriptor")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(memory_module.os, step, refuse)
        with pytest.raises(OSError, match="no descriptor"):
            memory.share(0, 2 * MIB)
    assert descriptors() == before
    assert memory.extents() == {} and memory.read(Aperture.VRAM, 5, 4) == b"kept"
    os.close(memory.share(0, 2 * MIB))
    assert memory.read(Aperture.VRAM, 5, 4) == b"kept"
    memory.unshare(0)
    assert memory.read(Aperture.VRAM, 5, 4) == bytes(4), "what lay below an extent is gone too"
    memory.close()


def test_a_device_says_that_no_descriptor_is_left(monkeypatch):
    device, _ = make_card()

    def refuse(_: int) -> int:
        raise OSError(24, "no descriptor")

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", refuse)
        with pytest.raises(OutOfResources):
            device.share(0, 2 * MIB)
        with pytest.raises(OutOfResources):
            device.connect_interrupt("msi", 0, 0)
    device.close()


def interrupt(device) -> None:
    """One message: a vector through an enabled leaf."""
    bar0 = device.bars[0]
    bar0.write32(0xB81608, 0xF)
    bar0.write32(0xB81200, 1)
    bar0.write32(0xB81000, 1)
    bar0.write32(0xB81640, 0)


@pytest.mark.parametrize("kind", ["pipe", "full", "full and blocking"])
def test_a_message_that_its_descriptor_cannot_take_is_counted(kind):
    device, _ = make_card()
    device.set_bus_master(True)
    read, write = os.pipe()
    if kind == "pipe":
        fd = read
    else:
        fd = os.eventfd(0, os.EFD_NONBLOCK if kind == "full" else 0)
        os.eventfd_write(fd, 0xFFFFFFFFFFFFFFFE)
    device.connect_interrupt("msi", 0, fd)
    interrupt(device)
    assert device.model.counters["messages_lost"] == device.model.counters["messages"] == 1
    good = os.eventfd(0)
    device.connect_interrupt("msi", 0, good)
    interrupt(device)
    assert os.eventfd_read(good) >= 1 and device.model.counters["messages_lost"] == 1
    device.close()
    for one in {read, write, fd, good}:
        os.close(one)


@pytest.mark.parametrize(
    "text",
    [
        "rpc-result:foo", "rpc-result:65,foo", "rpc-result:65,0x100000000", "rpc-spoil:ones", "rpc-spoil:zero,x", "rpc-spoil:zero,0",
        "sequencer-write:zz", "sequencer-write:0x110040", "sequencer-late:1=", "alloc-status:zz", "control-status:1,-1", "fsp-error:-1",
        "scrub-never:banana", "vgpu-rpc-error:q", "init-status:0x1ffffffff", "rpc-delay:1e400", "rpc-no-reply:1,2", "booter-mailbox:1=2",
    ],
)  # fmt: skip
def test_an_argument_is_judged_when_the_fault_is_armed(text):
    with pytest.raises(UnknownFault):
        ArmedFaults().arm(text)


@pytest.mark.parametrize(
    "text",
    [
        "rpc-result:65", "rpc-result:,0x1a", "rpc-result:65,0xff", "rpc-spoil:all-ones", "rpc-spoil:lost,3", "sequencer-write:0x110040=7",
        "alloc-status:0xc56f", "control-status:,0x56", "scrub-never:sec2", "rpc-delay:0.5", "wpr2-lingers:2", "rpc-no-reply:0x67",
    ],
)  # fmt: skip
def test_arguments_of_the_stated_form_are_taken(text):
    faults, (name, _, argument) = ArmedFaults(), text.partition(":")
    assert faults.arm(text) == name and faults.armed() == (name,)
    assert faults.peek(name) == argument


def test_the_form_of_every_argument_is_one_that_is_judged():
    """A row whose form the judge does not know would take a number and nothing else: none has an unknown one."""
    known = ("", "seconds", "ADDRESS=VALUE")
    for row in FAULTS:
        form = row.argument.partition(", default")[0]
        assert row.place == "BAR0 access" or form in known or form[0] == "[" or "|" in form or " or " in form or form.isalpha(), row
