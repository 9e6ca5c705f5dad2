"""A software GPU behind a real vfio-user server in a thread of its own, and a client that drives its channels over the socket alone."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvcore.vfio_user import DeviceServer
from nvcore_softgpu.device import SoftDevice
from tests.softgpu.device_kit import make_card
from tests.softgpu.test_engine_channels import DATA, Kicker, copy
from tests.vfio_user.fake import FakeClient

ACCESS = struct.Struct("<QII")
READ, WRITE, MULTI, MAP, RESET = 9, 10, 15, 2, 13
NO_REPLY = 0x10


class Wire(FakeClient):
    """A client that speaks of registers. Writes are posted; reads and `ask` wait for their answer."""

    def read32(self, offset: int, region: int = 0) -> int:
        error, body = self.ask(READ, ACCESS.pack(offset, region, 4))
        assert not error
        return int.from_bytes(body[16:], "little")

    def post(self, offset: int, data: bytes, region: int = 0) -> None:
        self.raw(self.pack(WRITE, ACCESS.pack(offset, region, len(data)) + data, NO_REPLY))

    # What `Kicker` writes memory with: BAR1, which is VRAM while nobody gave it a page directory.

    def write(self, aperture: object, address: int, data: bytes) -> None:
        self.post(address, data, region=1)

    def read(self, aperture: object, address: int, size: int) -> bytes:
        error, body = self.ask(READ, ACCESS.pack(address, 1, size))
        assert not error
        return body[16:]

    def memory(self, address: int, size: int) -> mmap.mmap:
        """Memory of the client's that the device reaches at `address`."""
        fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            assert self.ask(MAP, struct.pack("<IIQQQ", 32, 3, 0, address, size), [fd])[0] == 0
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)


class WireKicker(Kicker):
    """A channel whose ring, pushbuffer and doorbell are written over the socket."""

    def __init__(self, device: SoftDevice, wire: Wire, **where: int) -> None:
        super().__init__(device, **where)
        self.wire = wire
        self.space.memory = wire

    def ring_doorbell(self) -> None:
        self.wire.post(0xBB0090, struct.pack("<I", self.state.runlist << 16 | self.state.chid))

    def copy_without_end(self) -> None:
        """64 KiB at a time, some 2**48 bytes in all."""
        self.submit(*copy(DATA, DATA + (2 << 20), 1 << 16, lines=0xFFFFFFFF))
        self.ring_doorbell()


@contextmanager
def served_gpu(path: Path) -> Iterator[tuple[SoftDevice, Wire]]:
    """The device as `nvcore softgpu serve` serves it."""
    device, _ = make_card()
    device.set_bus_master(True)
    server = DeviceServer(device, str(path), work=device.card.turns())
    thread = threading.Thread(target=server.serve)
    thread.start()
    wire = Wire(str(path))
    wire.hello()
    try:
        yield device, wire
    finally:
        wire.close()
        server.close()
        thread.join(5)
        assert not thread.is_alive()
        device.close()
