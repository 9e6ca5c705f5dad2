"""A driver's side for tests of the behavioural GSP: memory, a ticker, a host engine and queues, written apart from the model's code."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Mapping
from typing import Any

from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.faults import ArmedFaults
from nvcore_softgpu.gsp.core import BehaviouralGsp
from nvcore_softgpu.ports import Aperture, ChannelState

PAGE = 0x1000
MIB = 1 << 20
WPR_MAGIC = 0xDC3AAE21371A60B3
SHARED = 0x10000000
SIZES = {"535.113.01": (0x298, 0x878, 0x270, 0x30, 108, 360), "570.144": (0x3A0, 0x678, 0x358, 0x20, 120, 368)}


class Memory:
    """Sparse VRAM and system memory; system pages must have been granted."""

    def __init__(self, vram_size: int) -> None:
        self.vram_size = vram_size
        self._pages: dict[tuple[Aperture, int], bytearray] = {}
        self.granted: set[int] = set()
        self.stray: list[str] = []

    def grant(self, address: int, size: int) -> None:
        self.granted |= set(range(address // PAGE, (address + size + PAGE - 1) // PAGE))

    def _walk(self, aperture: Aperture, address: int, size: int):
        while size:
            page, offset = divmod(address, PAGE)
            part = min(size, PAGE - offset)
            if aperture is Aperture.SYSTEM and page not in self.granted:
                self.stray.append(hex(address))
                yield None, offset, part
            elif aperture is Aperture.VRAM and address + part > self.vram_size:
                self.stray.append("vram " + hex(address))
                yield None, offset, part
            else:
                yield self._pages.setdefault((aperture, page), bytearray(PAGE)), offset, part
            address += part
            size -= part

    def reachable(self, aperture: Aperture, address: int, size: int) -> bool:
        if aperture is Aperture.VRAM:
            return 0 <= address <= self.vram_size - size
        return all(page in self.granted for page in range(address // PAGE, (address + size - 1) // PAGE + 1))

    def read(self, aperture: Aperture, address: int, size: int) -> bytes:
        out = bytearray()
        for page, offset, part in self._walk(aperture, address, size):
            out += b"\xff" * part if page is None else page[offset : offset + part]
        return bytes(out)

    def write(self, aperture: Aperture, address: int, data: bytes | memoryview) -> None:
        done = 0
        for page, offset, part in self._walk(aperture, address, len(data)):
            if page is not None:
                page[offset : offset + part] = data[done : done + part]
            done += part

    def fill(self, aperture: Aperture, address: int, size: int, value: int) -> None:
        self.write(aperture, address, bytes([value]) * size)


class Ticker:
    def __init__(self) -> None:
        self.time = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._queue, (when, self._number, what))

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while self._queue and self._queue[0][0] <= end:
            self.time, _, what = heapq.heappop(self._queue)
            what()
        self.time = end


class Log:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []
        self.controls: list[int] = []

    def violation(self, name: str, text: str) -> None:
        self.names.append(name)
        self.texts.append(f"{name}: {text}")

    def unknown_register(self, offset: int, write: bool) -> None:
        raise AssertionError("the GSP touches no register")

    def unknown_control(self, command: int) -> None:
        self.controls.append(command)


class Host:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.channels: dict[tuple[int, int], ChannelState] = {}
        self.enabled: set[tuple[int, int]] = set()
        self.roots: dict[int, int | None] = {}

    def add(self, channel: ChannelState) -> None:
        self.channels[channel.runlist, channel.chid] = channel
        self.calls.append(("add", channel.runlist, channel.chid))

    def set_enabled(self, runlist: int, chid: int, enabled: bool) -> None:
        (self.enabled.add if enabled else self.enabled.discard)((runlist, chid))
        self.calls.append(("enable", runlist, chid, enabled))

    def remove(self, runlist: int, chid: int) -> None:
        del self.channels[runlist, chid]
        self.calls.append(("remove", runlist, chid))

    def set_page_directory(self, instance_owner: object, address: int | None) -> None:
        self.roots[id(instance_owner)] = address
        self.calls.append(("root", address))

    def engine_object(self, runlist: int, chid: int, class_id: int) -> None:
        self.calls.append(("object", runlist, chid, class_id))


class Env:
    def __init__(self, chip: str = "GA100", vram: int = 4096 * MIB) -> None:
        self.memory = Memory(vram)
        self.violations = Log()
        self.faults = ArmedFaults()
        self.ticker = Ticker()
        self.channels = Host()
        self.chip = chip_named(chip)
        self.mailboxes = {0: 0, 1: 0}
        self.halted = False
        self.messages = 0
        self.where: dict[str, int] = {}
        self.bar2: int | None = None
        self.vfs: dict[str, int] = {
            "total_vfs": 16, "first_vf_offset": 4, "stride": 1, "bar0_size": 16 * MIB, "bar0_address": 0, "bar1_size": 4096 * MIB,
            "bar1_address": 0, "bar2_size": 32 * MIB, "bar2_address": 0,
        }  # fmt: skip

    def raise_message(self) -> None:
        self.messages += 1

    def set_mailbox(self, index: int, value: int) -> None:
        self.mailboxes[index] = value

    def set_halted(self, halted: bool, fault: bool = False) -> None:
        self.halted = halted

    def set_bar2_entry(self, value: int) -> None:
        self.bar2 = value

    def bar_directories(self) -> tuple[int, int]:
        return self.memory.vram_size - 0x10000, self.memory.vram_size - 0xF000

    def sriov(self) -> Mapping[str, int]:
        return self.vfs

    def place(self) -> Mapping[str, int]:
        return self.where


def xor32(data: bytes) -> int:
    """The checksum, word by word."""
    data += bytes(-len(data) % 8)
    total = 0
    for (word,) in struct.iter_unpack("<Q", data):
        total ^= word
    return (total >> 32) ^ (total & 0xFFFFFFFF)


class Message:
    def __init__(self, function: int, result: int, sequence: int, payload: bytes, number: int, checksum: int) -> None:
        self.function, self.result, self.sequence, self.payload = function, result, sequence, payload
        self.number, self.checksum = number, checksum


class Driver:
    """Queues as a driver keeps them. `scatter` gives the shared block pages in falling order."""

    def __init__(self, env: Env, version: str = "570.144", *, scatter: bool = False, vgpu: bool = False) -> None:
        self.env, self.version = env, version
        self.gsp = BehaviouralGsp(env)
        self.system_size, self.static_size, self.vf_at, self.resume_at, self.root_size, self.channel_size = SIZES[version]
        self.scatter, self.vgpu = scatter, vgpu
        self.sequence = self.number = self.write = self.read = 0
        self.events: list[Message] = []
        self.libos = 0x20000000
        self._lay_out()

    # -- memory

    def _lay_out(self) -> None:
        memory = self.env.memory
        order = range(129)
        self.pages = [SHARED + PAGE * (200 - index if self.scatter else index) for index in order]
        for page in self.pages:
            memory.grant(page, PAGE)
        table = struct.pack("<129Q", *self.pages)
        self._put(0, table)
        self._put(0x1000, struct.pack("<8I", 0, 0x40000, 0x1000, 63, 0, 1, 0x20, 0x1000) + bytes(4))
        memory.grant(self.libos, 0x100000)
        entries = []
        at = self.libos + PAGE
        for name, size in (("LOGINIT", 0x10000), ("LOGINTR", 0x10000), ("LOGRM", 0x10000), ("RMARGS", PAGE)):
            entries.append(struct.pack("<QQQBB6x", int.from_bytes(name.encode(), "big"), at, size, 1, 1))
            if size > PAGE:
                count = size // PAGE
                memory.write(Aperture.SYSTEM, at, struct.pack(f"<Q{count}Q", 0, *(at + PAGE * index for index in range(count))))
            at += size
        memory.write(Aperture.SYSTEM, self.libos, b"".join(entries))
        self.arguments = at - PAGE
        self.set_arguments()
        self.image()

    def set_arguments(self, level: int = 0) -> None:
        data = bytearray(PAGE)
        struct.pack_into("<QI4xQQ", data, 0, self.pages[0], 129, 0x1000, 0x41000)
        struct.pack_into("<IIB", data, self.resume_at, level, 0, 1 if level else 0)
        self.env.memory.write(Aperture.SYSTEM, self.arguments, bytes(data))

    def image(self) -> None:
        memory = self.env.memory
        root = 0x30000000
        memory.grant(root, 0x4000)
        for level in range(3):
            memory.write(Aperture.SYSTEM, root + PAGE * level, struct.pack("<Q", root + PAGE * (level + 1)))
        family = "tu10x" if self.env.chip.name == "GA100" else "ga10x"
        mark = b"nvcore synthetic GSP image\0" + self.version.encode() + b"\0" + family.encode() + b"\0"
        memory.write(Aperture.SYSTEM, root + 3 * PAGE + 0x800, mark)
        top = memory.vram_size - MIB
        heap = (581 if self.vgpu else 134) * MIB
        self.meta = {
            "magic": WPR_MAGIC, "sysmemAddrOfRadix3Elf": root, "sizeOfRadix3Elf": 0x40000, "gspFwWprEnd": top, "frtsOffset": top,
            "gspFwWprStart": top - heap - 33 * MIB, "gspFwHeapOffset": top - heap - 32 * MIB, "gspFwHeapSize": heap,
            "nonWprHeapOffset": top - heap - 34 * MIB, "nonWprHeapSize": MIB, "gspFwRsvdStart": top - heap - 34 * MIB,
            "fbSize": memory.vram_size, "gspFwHeapVfPartitionCount": 32 if self.vgpu else 0,
        }  # fmt: skip

    def _put(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            page, inside = divmod(offset + done, PAGE)
            part = min(len(data) - done, PAGE - inside)
            self.env.memory.write(Aperture.SYSTEM, self.pages[page] + inside, data[done : done + part])
            done += part

    def _get(self, offset: int, size: int) -> bytes:
        out = b""
        while size:
            page, inside = divmod(offset, PAGE)
            part = min(size, PAGE - inside)
            out += self.env.memory.read(Aperture.SYSTEM, self.pages[page] + inside, part)
            offset += part
            size -= part
        return out

    def word(self, offset: int) -> int:
        return struct.unpack("<I", self._get(offset, 4))[0]

    def put_word(self, offset: int, value: int) -> None:
        self._put(offset, struct.pack("<I", value))

    # -- queues

    def free_slots(self) -> int:
        return (self.word(0x41020) - self.write - 1) % 63

    def record(
        self, function: int, payload: bytes, *, sequence: int = 0, number: int | None = None, spoil: int = 0, slots: int = 0
    ) -> None:
        rpc = struct.pack("<8I", 0x03000000, 0x43505256, 32 + len(payload), function, 0xFFFFFFFF, 0xFFFFFFFF, sequence, 0) + payload
        need = (0x30 + len(rpc) + PAGE - 1) // PAGE
        assert need <= self.free_slots(), "the test's driver waits for slots itself"
        number = self.number if number is None else number
        head = bytes(32) + struct.pack("<IIII", 0, number, slots or need, 0)
        head = head[:32] + struct.pack("<I", xor32(head + rpc) ^ spoil) + head[36:]
        data = head + rpc
        data += bytes(-len(data) % 8)
        for index in range(need):
            slot = (self.write + index) % 63
            self._put(0x2000 + slot * PAGE, data[index * PAGE : (index + 1) * PAGE])
        self.write = (self.write + need) % 63
        self.number += 1
        self.put_word(0x1010, self.write)

    def send(self, function: int, payload: bytes, *, ring: bool = True) -> int:
        """One message, split as drivers split it; the sequence of its first record."""
        first = self.sequence
        pieces = [payload[at : at + 0xFFB0] for at in range(0, max(len(payload), 1), 0xFFB0)]
        for index, piece in enumerate(pieces):
            need = (0x50 + len(piece) + PAGE - 1) // PAGE
            for _ in range(1000):
                if self.free_slots() >= need:
                    break
                self.env.ticker.advance(0.001)
            self.record(0x47 if index else function, piece, sequence=self.sequence)
            self.sequence += 1
            if ring:
                self.gsp.doorbell()
        return first

    def receive(self) -> Message | None:
        write = self.word(0x41010)
        if write == self.read:
            return None
        base = 0x42000 + self.read * PAGE
        _, number, slots, _ = struct.unpack("<IIII", self._get(base + 32, 16))
        length, function, result, _, sequence = struct.unpack("<5I", self._get(base + 0x38, 20))
        size = (0x30 + length + 7) & ~7
        data = b""
        for index in range(slots if slots <= 16 else (0x30 + length + PAGE - 1) // PAGE):
            data += self._get(0x42000 + ((self.read + index) % 63) * PAGE, PAGE)
        self.read = (self.read + len(data) // PAGE) % 63
        self.put_word(0x1020, self.read)
        return Message(function, result, sequence, data[0x50 : 0x30 + length], number, xor32(data[:size]))

    def wait(self, function: int, seconds: float = 5.0) -> Message | None:
        """The next record of that function; events on the way are kept."""
        end = self.env.ticker.time + seconds
        while True:
            message = self.receive()
            if message is not None:
                if message.function == function:
                    return message
                self.events.append(message)
                continue
            if self.env.ticker.time >= end:
                return None
            self.env.ticker.advance(0.001)

    def call(self, function: int, payload: bytes, seconds: float = 5.0) -> Message:
        self.send(function, payload)
        reply = self.wait(function, seconds)
        assert reply is not None, f"no reply to {function:#x}"
        return reply

    # -- what drivers send

    def system_info(self) -> bytes:
        data = bytearray(self.system_size)
        if self.vgpu:
            struct.pack_into("<II", data, self.vf_at, 16, 4)
        return bytes(data)

    def registry(self, **more: int) -> bytes:
        keys = {"RMSecBusResetEnable": 1, "RMForcePcieConfigSave": 1, "RMDevidCheckIgnore": 1, **more}
        if self.vgpu:
            keys["RMSetSriovMode"] = 1
        names, entries = b"", b""
        for name, value in keys.items():
            entries += struct.pack("<IB3xII", 8 + 16 * len(keys) + len(names), 1, value, 4)
            names += name.encode() + b"\0"
        return struct.pack("<II", 8 + len(entries) + len(names), len(keys)) + entries + names

    def queue_start(self) -> None:
        for function, payload in ((0x48, self.system_info()), (0x49, self.registry())):
            self.record(function, payload)
            self.gsp.doorbell()

    def boot(self) -> Message:
        self.queue_start()
        reason = self.gsp.start(self.meta, self.libos)
        assert reason is None, reason
        done = self.wait(0x1001)
        assert done is not None and done.result == 0
        return done

    def control(self, client: int, handle: int, command: int, params: bytes, seconds: float = 5.0) -> tuple[int, bytes]:
        reply = self.call(0x4C, struct.pack("<6I", client, handle, command, 0, len(params), 0) + params, seconds)
        assert reply.result == 0, hex(reply.result)
        return struct.unpack_from("<I", reply.payload, 12)[0], reply.payload[24:]

    def internal(self, command: int, params: bytes) -> tuple[int, bytes]:
        return self.control(0xC2000001, 0xABCD2080, command, params)

    def alloc(self, client: int, parent: int, handle: int, class_id: int, params: bytes = b"") -> int:
        reply = self.call(0x67, struct.pack("<7I4x", client, parent, handle, class_id, 0, len(params), 0) + params)
        assert reply.result == 0, hex(reply.result)
        return struct.unpack_from("<I", reply.payload, 16)[0]

    def free(self, client: int, handle: int) -> int:
        reply = self.call(0x0A, struct.pack("<4I", client, 0, handle, 0))
        return struct.unpack_from("<I", reply.payload, 12)[0]

    def space(self, client: int, *, external: bool = True, root: int | None = 0x200000) -> None:
        assert self.alloc(client, client, client, 0, struct.pack("<II", client, 0xFFFFFFFF).ljust(self.root_size, b"\0")) == 0
        assert self.alloc(client, client, 0xDE1D0000, 0x80, struct.pack("<II", 0, client).ljust(56, b"\0")) == 0
        assert self.alloc(client, 0xDE1D0000, 0x5D1D0000, 0x2080, bytes(4)) == 0
        assert self.alloc(client, 0xDE1D0000, 0x90F10000, 0x90F1, struct.pack("<II", 0, 8 if external else 0).ljust(48, b"\0")) == 0
        if external and root is not None:
            entries = 4 if self.env.chip.tables == 2 else 2
            block = struct.pack("<QIIIIII", root, entries, 0, 0x90F10000, 0, 0, 0)
            assert self.control(client, 0xDE1D0000, 0x00801813, block)[0] == 0

    def channel_params(self, chid: int, engine: int, instance: int, *, space: int = 0x90F10000, entries: int = 1024) -> bytes:
        data = bytearray(self.channel_size)
        flags = 0x00200000 | (chid // 8) << 12 | (chid % 8) << 8 | 0x20
        struct.pack_into("<QIIII", data, 8, 0x1000000, entries, flags, 0, space)
        struct.pack_into("<I", data, 0x80, engine)
        for offset, base, size, where in ((0x90, instance, 0x1000, 2), (0xA8, instance + 0x1000, 0x200, 2), (0xC0, instance, 0x200, 2)):
            struct.pack_into("<QQII", data, offset, base, size, where, 1)
        struct.pack_into("<I", data, 0xF4, 0x15)
        return bytes(data)

    def channel(self, client: int, chid: int, engine: int, instance: int) -> int:
        handle = 0xF1F00000 | chid
        assert self.alloc(client, 0xDE1D0000, handle, self.env.chip.channel_class, self.channel_params(chid, engine, instance)) == 0
        assert self.control(client, handle, 0xA06F0104, struct.pack("<I", engine))[0] == 0
        assert self.control(client, handle, 0xA06F0103, b"\1\0")[0] == 0
        return handle
