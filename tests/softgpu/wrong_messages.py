"""Wrong messages to a firmware and wrong ways to start or end it: each returns what the model said, as "name: text"."""

from __future__ import annotations

import struct
from collections.abc import Callable

from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import MIB, Driver, Env, xor32
from tests.softgpu.test_gsp_vgpu import HEAP, UNIT, Host, upload

Run = Callable[[], list[str]]
Step = Callable[[Driver], object]
SYSTEM, VRAM = Aperture.SYSTEM, Aperture.VRAM
OWN, OWN_DEVICE, OWN_SUBDEVICE = 0xC2000001, 0xABCD0080, 0xABCD2080
CLIENT, DEVICE, SUBDEVICE, SPACE = 0xC1D00010, 0xDE1D0000, 0x5D1D0000, 0x90F10000
UPLOAD = 334344
PIECE = 0xFFB0


def gsp(step: Step, *, before: Step | None = None, vgpu: bool = False, version: str = "570.144") -> Run:
    """A step on a running firmware. before: something wrong ahead of the start."""

    def run() -> list[str]:
        driver = Driver(Env(), version, vgpu=vgpu)
        if before is not None:
            before(driver)
        driver.boot()
        step(driver)
        return driver.env.violations.texts

    return run


def unstarted(change: Step) -> Run:
    """A start that may fail."""

    def run() -> list[str]:
        driver = Driver(Env())
        change(driver)
        driver.queue_start()
        driver.gsp.start(driver.meta, driver.libos)
        return driver.env.violations.texts

    return run


def sent(function: int, payload: bytes) -> Run:
    return gsp(lambda driver: driver.send(function, payload))


def control(command: int, params: bytes, *, client: int = OWN, handle: int = OWN_SUBDEVICE) -> Run:
    return gsp(lambda driver: driver.control(client, handle, command, params))


def with_space(step: Step, **options: object) -> Run:
    """A step of a client that has device, subdevice and address space."""

    def both(driver: Driver) -> None:
        driver.space(CLIENT, **options)  # type: ignore[arg-type]
        step(driver)

    return gsp(both)


def with_channel(step: Callable[[Driver, int], object], *, engine: int = 9) -> Run:
    """A step of a client that has a channel; the step gets its handle too."""
    return with_space(lambda driver: step(driver, driver.channel(CLIENT, 3, engine, 0x700000)))


def client_control(command: int, params: bytes, handle: int = SUBDEVICE, **options: object) -> Run:
    return with_space(lambda driver: driver.control(CLIENT, handle, command, params), **options)


def channel(*patches: tuple[int, str, int], engine: int = 9, second: bool = False) -> Run:
    """A channel with some parameters changed: (offset, format, value). second: after an orderly one."""

    def step(driver: Driver) -> None:
        if second:
            driver.channel(CLIENT, 3, 9, 0x700000)
        params = bytearray(driver.channel_params(4 if second else 3, engine, 0x720000))
        for offset, layout, value in patches:
            struct.pack_into(layout, params, offset, value)
        driver.alloc(CLIENT, DEVICE, 0x55, driver.env.chip.channel_class, bytes(params))

    return with_space(step)


def unbound(driver: Driver) -> None:
    driver.alloc(CLIENT, DEVICE, 0x55, driver.env.chip.channel_class, driver.channel_params(3, 9, 0x700000))
    driver.control(CLIENT, 0x55, 0xA06F0103, b"\1\0")


def stopped(driver: Driver, handle: int) -> None:
    driver.control(CLIENT, handle, 0xA06F0112, b"\1")
    driver.control(CLIENT, handle, 0xA06F0103, b"\1\0")


def root(address: int = 0x200000, entries: int = 4, flags: int = 0, space: int = SPACE, *, external: bool = True) -> Run:
    block = struct.pack("<QIIIIII", address, entries, flags, space, 0, 0, 0)
    return client_control(0x00801813, block, DEVICE, external=external, root=None)


def unset(handle: int, step: Step = lambda _: None, **options: object) -> Run:
    def both(driver: Driver) -> None:
        step(driver)
        driver.control(CLIENT, DEVICE, 0x00801814, struct.pack("<II", handle, 0))

    return with_space(both, **options)


def reserved(*patches: tuple[int, str, int]) -> Run:
    """The firmware's part of an address space, with something changed."""
    block = bytearray(184)
    struct.pack_into("<IIQQQII", block, 0, 0, 0, 0x20000000, 0x100000000, 0x11FFFFFFF, 3, 0)
    for index, shift in enumerate((47, 38, 29)):
        struct.pack_into("<QQIB", block, 0x28 + 24 * index, 0x400000 + 0x1000 * index, 4096, 1, shift)
    for offset, layout, value in patches:
        struct.pack_into(layout, block, offset, value)
    return client_control(0x90F10106, bytes(block), SPACE, external=False)


def promotion(*, handle: int = 0xF1F00003, engine: int = 1, physical: int = 0x800000, virtual: int = 0x100000) -> Run:
    entry = struct.pack("<QQQIHBB", physical, virtual, 0x1000, 4, 0, 1, 0)
    block = struct.pack("<6IQQII", engine, 0, 0, CLIENT, handle, 0, 0, 0, 1, 0) + entry
    return with_channel(lambda driver, _: driver.control(CLIENT, SUBDEVICE, 0x2080012B, block.ljust(560, b"\0")), engine=1)


def memory_list(class_id: int, length: int, pages: list[int], *, device: int = OWN_DEVICE) -> Run:
    head = struct.pack("<7I4xQI4xI4x", OWN, device, 0xCAF00003, class_id, 0, 0, 6, length, len(pages), len(pages) << 16)
    return sent(4, head + struct.pack(f"<{len(pages)}Q", *pages))


def allocated(client: int, parent: int, handle: int, class_id: int, params: bytes) -> Run:
    return gsp(lambda driver: driver.alloc(client, parent, handle, class_id, params))


# --- queues -----------------------------------------------------------------------------------------------------------------------


def forged(patches: dict[int, bytes] | None = None, *, slots: int = 0, less: int = 0, number: int | None = None, spoil: int = 0) -> Run:
    """One request with bytes of its record changed, its sum made right again (unless spoilt). less: slots that are not shown."""

    def step(driver: Driver) -> None:
        payload = bytes(driver.static_size)
        driver.record(0x41, payload if not less else bytes(0x1800), slots=slots, number=number, spoil=spoil)
        slot = 0x2000 + (driver.write - 1 - less) % 63 * 0x1000
        for offset, data in (patches or {}).items():
            driver._put(slot + offset, data)
        if patches:
            driver._put(slot + 32, bytes(4))
            driver._put(slot + 32, struct.pack("<I", xor32(driver._get(slot, 0x50 + len(payload)))))
        driver.put_word(0x1010, (driver.write - less) % 63)
        driver.gsp.doorbell()

    return gsp(step)


def records(*pieces: tuple[int, bytes]) -> Run:
    """Records as they are, one after the other."""

    def step(driver: Driver) -> None:
        for function, payload in pieces:
            driver.record(function, payload)
            driver.gsp.doorbell()
            while driver.receive() is not None:
                pass

    return gsp(step)


def pointer(place: int) -> Run:
    def step(driver: Driver) -> None:
        driver.put_word(place, 63)
        driver.send(0x41, bytes(driver.static_size)) if place == 0x1020 else driver.gsp.doorbell()

    return gsp(step)


def many_faults(driver: Driver) -> None:
    for _ in range(1500):
        driver.gsp.channel_fault(1, 1, "flood", 0x1000)


LONG = struct.pack("<6I", OWN, OWN_SUBDEVICE, 0x20804003, 0, UPLOAD, 0) + bytes(UPLOAD)


# --- start and end ----------------------------------------------------------------------------------------------------------------


def argument(index: int, layout: str, offset: int, value: int) -> Run:
    """One libos argument changed."""
    return unstarted(lambda driver: driver.env.memory.write(SYSTEM, driver.libos + 32 * index + offset, struct.pack(layout, value)))


def log_word(index: int, value: int) -> Run:
    return unstarted(lambda driver: driver.env.memory.write(SYSTEM, driver.libos + 0x1000 + 8 * index, struct.pack("<Q", value)))


def queued(function: int, payload: Callable[[Driver], bytes]) -> Run:
    return gsp(lambda _: None, before=lambda driver: driver.record(function, payload(driver)))


def registry(*words: int, names: bytes = b"") -> Run:
    return sent(0x49, struct.pack(f"<{len(words)}I", *words) + names)


# --- vGPUs ------------------------------------------------------------------------------------------------------------------------


def vgpu(step: Callable[[Host], object], before: Step | None = None, *, enabled: bool = True) -> Run:
    """A step of a vGPU host."""

    def both(driver: Driver) -> None:
        driver.space(CLIENT, root=None)
        step(Host(driver))

    return gsp(both, before=before, vgpu=enabled)


def task(**fields: object) -> Run:
    """A task with some of its description changed."""

    def step(host: Host) -> None:
        for name, value in fields.items():
            setattr(host, name, value)
        host.bootload()

    return vgpu(step)


def messages(*kinds: int, body: bytes = b"", **options: int) -> Run:
    """A task that is started and gets messages."""

    def step(host: Host) -> None:
        host.bootload()
        for kind in kinds:
            host.message(kind, body or (host.configuration() if kind == 2 else b""), **options)

    return vgpu(step)


def description(offset: int, value: int) -> Run:
    """A task whose description has one word changed."""

    def step(host: Host) -> None:
        block = bytearray(host.parameters())
        struct.pack_into("<I", block, offset, value)
        host.driver.control(CLIENT, SUBDEVICE, 0x20804001, bytes(block))

    return vgpu(step)


def of_type(uploaded: list[int], wanted: int, *, late: bool = False) -> Callable[[Host], object]:
    """late: the type is wrong in the configuration only."""

    def step(host: Host) -> None:
        upload(host.driver, uploaded)
        host.type = uploaded[0] if late else wanted
        host.bootload()
        host.type = wanted
        host.message(1)
        host.message(2, host.configuration())

    return step


def two(**fields: object) -> Callable[[Host], object]:
    """A second task that shares something with the first."""

    def step(host: Host) -> None:
        host.bootload()
        other = Host(host.driver, 2, slot=1)
        for name, value in fields.items():
            setattr(other, name, value)
        other.bootload()

    return step


def more_tasks_than_allowed(host: Host) -> None:
    host.driver.env.vfs["total_vfs"] = 64
    for gfid in range(1, 34):
        other = Host(host.driver, gfid, slot=gfid - 1)
        other.segments, other.heap = [(UNIT * gfid, UNIT)], ((34 + gfid // 8) * UNIT + gfid % 8 * 8 * MIB, 8 * MIB)
        other.channels, other.chids = 8, 8 * gfid
        assert other.bootload() == (0 if gfid < 33 else 0x63), gfid


def calls(*commands: int) -> Callable[[Host], object]:
    """Controls about a task; 0 starts it."""

    def step(host: Host) -> None:
        for command in commands:
            host.control(command) if command else host.bootload()

    return step


def without(name: str, value: int) -> Step:
    def before(driver: Driver) -> None:
        driver.meta[name] = value

    return before


def without_functions(driver: Driver) -> None:
    driver.env.vfs = {}


def without_information(driver: Driver) -> None:
    driver.system_info = lambda: bytes(driver.system_size)  # type: ignore[method-assign]


def rung(*, stop: bool = False, again: bool = False) -> Callable[[Host], object]:
    """A doorbell that nobody expects."""

    def step(host: Host) -> None:
        if stop or again:
            host.bootload()
            host.message(1)
        if stop:
            host.control(0x20804002)
        host.driver.gsp.vgpu_doorbell(1)

    return step


def stale(host: Host) -> None:
    host.write(8, struct.pack("<I", 5))
    host.bootload()


def freed_client(host: Host) -> None:
    host.bootload()
    host.driver.free(CLIENT, CLIENT)


CASES: list[tuple[str, str, Run]] = [
    ("queue-checksum", "expected 0", forged(spoil=0x10)),
    ("queue-sequence", "record number 1", forged(number=1)),
    ("queue-sequence", "expected 2", forged(number=5)),
    ("queue-framing", "9 slots", forged(slots=9)),
    ("queue-framing", "length 0x1f", forged({0x38: struct.pack("<I", 0x1F)})),
    ("queue-framing", "1 written", forged(less=1)),
    *(("queue-header", "not zero", forged({offset: b"\1"})) for offset in (0, 0x1F, 0x2C)),
    ("rpc-header", "version 0x2000000", forged({0x30: struct.pack("<I", 0x02000000)})),
    ("rpc-header", "signature 0x1", forged({0x34: struct.pack("<I", 1)})),
    *(("rpc-header", "instead of pending", forged({offset: bytes(4)})) for offset in (0x40, 0x44)),
    ("queue-pointer", "command write pointer 63", pointer(0x1010)),
    ("queue-pointer", "status read pointer 63", pointer(0x1020)),
    ("status-overflow", "wait for room", gsp(many_faults)),
    ("stray-continuation", "announced", records((0x47, bytes(100)))),
    ("interleaved-message", "inside GSP_RM_CONTROL", records((0x4C, LONG[:PIECE]), (0x41, bytes(0x678)))),
    ("short-record", "in the middle", records((0x4C, LONG[:PIECE]), (0x47, bytes(100)))),
    ("long-message", "GSP_RM_CONTROL", records((0x4C, LONG[:16] + struct.pack("<I", PIECE) + LONG[20:PIECE]), (0x47, bytes(100)))),
    ("message-too-long", "ALLOC_MEMORY", records((4, bytes(0x28) + struct.pack("<I", 0xFFFFFFFF) + bytes(PIECE - 0x2C)))),
    ("short-message", "announced", sent(0x4C, struct.pack("<6I", OWN, OWN_SUBDEVICE, 0x20800137, 0, 4000, 0) + bytes(4))),
    *(
        ("short-message", "at least", sent(function, bytes(4)))
        for function in (0x04, 0x0A, 0x2F, 0x36, 0x46, 0x49, 0x4C, 0x4F, 0x67)
    ),
    ("unknown-function", "0xc7", sent(0xC7, bytes(16))),
    ("shared-memory", "version 1", unstarted(lambda driver: driver.put_word(0x1000, 1))),
    ("shared-memory", "status queue", unstarted(lambda driver: driver.env.memory.write(SYSTEM, driver.arguments + 0x18, b"\0\x20\x04"))),
    ("shared-memory", "not a page", unstarted(lambda driver: driver.env.memory.write(SYSTEM, driver.arguments, b"\1"))),
    ("shared-memory", "pages, expected", unstarted(lambda driver: driver.env.memory.write(SYSTEM, driver.arguments + 8, b"\2"))),
    ("shared-memory", "listed twice", unstarted(lambda driver: driver._put(40, struct.pack("<Q", driver.pages[4])))),
    ("resume-arguments", "level 3", unstarted(lambda driver: driver.set_arguments(level=3))),
    ("libos-argument", "kind 2", argument(1, "<B", 24, 2)),
    ("libos-argument", "location 2", argument(1, "<B", 25, 2)),
    ("libos-argument", "whole pages", argument(1, "<Q", 16, 0x10800)),
    ("libos-argument", "twice", argument(1, "<Q", 0, int.from_bytes(b"LOGINIT", "big"))),
    ("libos-argument", "first entry", argument(0, "<Q", 0, int.from_bytes(b"LOGKRNL", "big"))),
    ("log-size", "LOGINTR", argument(1, "<Q", 16, 2 * MIB)),
    ("log-page-list", "LOGINIT", log_word(1, 0x1000)),
    ("log-page-list", "LOGINIT", log_word(5, 0)),
    ("log-put", "7 before", log_word(0, 7)),
    ("command-before-init", "GET_GSP_STATIC_INFO", queued(0x41, lambda driver: bytes(driver.static_size))),
    ("system-info-size", "0x10 bytes", sent(0x48, bytes(16))),
    ("system-info-twice", "second", gsp(lambda driver: driver.send(0x48, driver.system_info()))),
    *(
        ("system-info", f"{name} is 0x0", gsp(lambda _: None, before=lambda driver, name=name: driver.env.where.update({name: 5})))
        for name in ("gpuPhysAddr", "nvDomainBusDeviceFunc", "pciConfigMirrorBase", "PCIDeviceID")
    ),
    ("vf-info", "8", gsp(lambda _: None, before=lambda driver: driver.env.vfs.update(total_vfs=8), vgpu=True)),
    ("vf-info", "from 4", gsp(lambda _: None, before=lambda driver: driver.env.vfs.update(first_vf_offset=3), vgpu=True)),
    ("registry", "entries", registry(100, 1)),
    ("registry", "entries", registry(8, 9)),
    ("registry", "name at 0x4", registry(26, 1, 4, 1, 0, 0, names=b"x\0")),
    ("registry", "type 7", registry(26, 1, 24, 7, 0, 0, names=b"x\0")),
    ("registry", "name at 0x18", registry(26, 1, 24, 1, 0, 0, names=b"xy")),
    ("registry", "data 0x18, length 0x9", registry(26, 1, 24, 2, 24, 9, names=b"x\0")),
    ("registry", "more than", registry(60, 3, *(56, 2, 0, 60) * 3, names=b"abc\0")),
    ("static-info-size", "0x8 bytes", sent(0x41, bytes(8))),
    ("suspend-unprepared", "FBSR_INIT", sent(0x2F, struct.pack("<BB2xI", 1, 0, 3))),
    ("suspend-memory", "0xcaf00003", control(0x20800AC2, struct.pack("<IIB7xQ", OWN, 0xCAF00003, 1, 4096))),
    ("bar-entry", "type 0", sent(0x46, struct.pack("<I4xQQ", 0, 0x1234, 47))),
    ("bar-entry", "shift 38", sent(0x46, struct.pack("<I4xQQ", 1, 0x1234, 38))),
    ("control-size", "sent", sent(0x4C, struct.pack("<6I", OWN, OWN_SUBDEVICE, 0x20800137, 0, 4, 0) + bytes(8))),
    ("control-size", "8 bytes", control(0x20800137, bytes(8))),
    ("control-flags", "flags 0x2", sent(0x4C, struct.pack("<6I", OWN, OWN_SUBDEVICE, 0x20800137, 0, 4, 2) + bytes(4))),
    ("control-object", "unknown object", control(0x20800137, bytes(4), handle=0x5555)),
    ("control-object", "on a device", control(0x20800137, bytes(4), handle=OWN_DEVICE)),
    ("alloc-size", "sent", sent(0x67, struct.pack("<7I4x", CLIENT, CLIENT, CLIENT, 0, 0, 8, 0))),
    ("alloc-size", "class 0x80: 48 bytes", allocated(OWN, OWN, 0x99, 0x80, bytes(48))),
    ("alloc-parent", "under 0x1234", allocated(OWN, 0x1234, 0x99, 0x2080, bytes(4))),
    ("alloc-parent", "allocated as 0x5", allocated(CLIENT, CLIENT, 5, 0, bytes(120))),
    ("alloc-parent", "client 0xc2000001", allocated(OWN, OWN, OWN, 0, bytes(120))),
    ("alloc-parent", "memory list", memory_list(0x81, 0x1000, [1], device=0x1234)),
    ("unknown-class", "0x73", allocated(OWN, OWN_DEVICE, 0x99, 0x73, b"")),
    ("memory-list", "class 0x83", memory_list(0x83, 0x1000, [1])),
    ("memory-list", "2 pages", memory_list(0x81, 0x4000, [1, 2])),
    ("memory-list", "leave VRAM", memory_list(0x82, 0x2000, [(4096 * MIB >> 12) - 1])),
    ("free-unknown", "0x4242", gsp(lambda driver: driver.free(OWN, 0x4242))),
    ("free-parent", "hangs under", with_space(lambda driver: driver.send(0x0A, struct.pack("<4I", CLIENT, CLIENT, SUBDEVICE, 0)))),
    ("space-in-use", "1 channels", with_channel(lambda driver, _: driver.free(CLIENT, SPACE))),
    ("root-left-set", "page directory set", with_space(lambda driver: driver.free(CLIENT, SPACE))),
    ("page-directory-space", "0x77", root(space=0x77)),
    ("page-directory-space", "0x77", unset(0x77)),
    ("page-directory-owner", "externally", root(external=False)),
    ("page-directory-entries", "2 root entries", root(entries=2)),
    *(("page-directory-address", "root at", root(address)) for address in (0x200800, 1 << 44)),
    ("page-directory-address", "aperture 3", root(flags=3)),
    ("page-directory-unset", "no page directory", unset(SPACE, root=None)),
    ("unset-under-channels", "[3]", unset(SPACE, lambda driver: driver.channel(CLIENT, 3, 9, 0x700000))),
    ("reserved-range", "page 0x200000", reserved((8, "<Q", 0x200000))),
    ("reserved-range", "0x200000000", reserved((0x10, "<Q", 0x200000000))),
    ("reserved-levels", "4 levels", reserved((0x20, "<I", 4))),
    ("reserved-levels", "shift 46", reserved((0x28 + 20, "<I", 46))),
    ("reserved-levels", "aperture 2", reserved((0x40 + 16, "<I", 2))),
    ("channel-engine", "0x33", channel((0x80, "<I", 0x33))),
    ("channel-space", "0x777", channel((0x1C, "<I", 0x777))),
    ("channel-space", "share 0x61", channel((0x18, "<I", 0x61))),
    ("channel-id", "id 3", channel((0x14, "<I", 0x200020 | 3 << 8), second=True)),
    ("channel-id", "id 2048", channel((0x14, "<I", 0x200020 | 256 << 12))),
    *(("channel-gpfifo", f"{entries} GPFIFO", channel((0x10, "<I", entries))) for entries in (0, 3)),
    ("channel-gpfifo", "0x1000004", channel((8, "<Q", 0x1000004))),
    ("channel-instance", "at 0x700100", channel((0x90, "<Q", 0x700100))),
    ("channel-instance", "address space 1", channel((0xA0, "<I", 1))),
    ("channel-instance", "0x800 bytes", channel((0x98, "<Q", 0x800))),
    ("channel-instance", "another channel's", channel((0x90, "<Q", 0x700000), second=True)),
    ("channel-userd", "address space 7", channel((0xB8, "<I", 7))),
    ("channel-userd", "at 0x701100", channel((0xA8, "<Q", 0x701100))),
    ("channel-userd", "0x100 bytes", channel((0xB0, "<Q", 0x100))),
    ("channel-userd", "address space 1", channel((0xB8, "<I", 1))),
    ("channel-userd", "another channel's", channel((0xA8, "<Q", 0x701000), second=True)),
    ("channel-fault-buffer", "0x1000 bytes", channel((0xD8, "<Q", 0x800000), (0xE0, "<Q", 0x1000), (0xE8, "<I", 2))),
    ("channel-fault-buffer", "0x0 bytes", channel((0xD8, "<Q", 0x800000), (0xE8, "<I", 2))),
    ("channel-fault-buffer", "at 0x0", channel((0xE0, "<Q", 0x1000), (0xE8, "<I", 2))),
    ("channel-fault-buffer", "address space 1", channel((0xD8, "<Q", 0x800000), (0xE0, "<Q", 0x2000), (0xE8, "<I", 1))),
    ("object-engine", "engine type 0xa", with_channel(lambda driver, of: driver.alloc(CLIENT, of, 0x70, 0xC6B5, b"\1\0\0\0\x0a\0\0\0"))),
    ("object-engine", "no graphics", with_channel(lambda driver, of: driver.alloc(CLIENT, of, 0x70, 0xC697))),
    ("bind-engine", "0xa", with_channel(lambda driver, of: driver.control(CLIENT, of, 0xA06F0104, struct.pack("<I", 10)))),
    ("schedule-unbound", "not bound", with_space(unbound)),
    ("schedule-unbound", "stopped", with_channel(stopped)),
    ("promote-channel", "0x99", promotion(handle=0x99)),
    ("promote-engine", "0x9", promotion(engine=9)),
    ("promote-address", "no address", promotion(physical=0, virtual=0)),
    ("promote-memory", "not the driver's", promotion(physical=1 << 44)),
    ("vgpu-not-enabled", "RMSetSriovMode", vgpu(Host.bootload, enabled=False)),
    ("vgpu-not-enabled", "PartitionCount", vgpu(Host.bootload, without("gspFwHeapVfPartitionCount", 0))),
    ("vgpu-not-enabled", "580 MiB", vgpu(Host.bootload, without("gspFwHeapSize", 580 * MIB))),
    ("vgpu-not-enabled", "SR-IOV", vgpu(Host.bootload, without_functions)),
    ("vgpu-not-enabled", "gspVFInfo", vgpu(Host.bootload, without_information)),
    ("vgpu-gfid", "gfid 17", task(gfid=17)),
    ("vgpu-gfid", "already", vgpu(calls(0, 0))),
    ("vgpu-gfid", "32 tasks", vgpu(more_tasks_than_allowed)),
    ("vgpu-type-count", "65", client_control(0x20804003, struct.pack("<II", 1, 65).ljust(UPLOAD, b"\0"), root=None)),
    ("vgpu-type", "comes twice", vgpu(lambda host: upload(host.driver, [700, 700]))),
    ("vgpu-type", "type 999, swizzle", vgpu(of_type([700], 999))),
    ("vgpu-type", "999 was not uploaded", vgpu(of_type([700], 999, late=True))),
    ("vgpu-type", "swizzle id 5", description(16, 5)),
    ("vgpu-segments", "0 segments", task(segments=[])),
    ("vgpu-segments", "whole segments", task(segments=[(UNIT, UNIT // 2)])),
    ("vgpu-heap", "0x40000800", task(heap=(0x40000800, HEAP))),
    ("vgpu-memory", "outside VRAM", task(segments=[(1 << 43, UNIT)])),
    ("vgpu-memory", "overlap", task(heap=(UNIT, HEAP))),
    ("vgpu-memory", "overlap", vgpu(two(heap=(1024 * MIB, HEAP)))),
    ("vgpu-buffers", "inside the heap", task(heap=(2048 * MIB, 0x260000))),
    ("vgpu-channels", "of 2048", task(chids=1800)),
    ("vgpu-channels", "plugin channels", description(24, 6)),
    ("vgpu-channels", "not free", vgpu(two(chids=512))),
    ("vgpu-channels", "not free", vgpu(lambda host: (host.driver.channel(CLIENT, 600, 9, 0x700000), host.bootload()))),
    ("vgpu-channels", "at the start", messages(1, 2, body=bytes(112))),
    ("vgpu-stale-control", "0x5", vgpu(stale)),
    ("vgpu-doorbell", "no task", vgpu(rung())),
    ("vgpu-doorbell", "stopped", vgpu(rung(stop=True))),
    ("vgpu-doorbell", "no new message", vgpu(rung(again=True))),
    ("vgpu-control", "version 2", messages(1, version=2)),
    ("vgpu-message", "message 99", messages(99)),
    ("vgpu-order", "before the version", messages(2)),
    ("vgpu-order", "before the configuration", messages(1, 3)),
    ("vgpu-unknown", "shutdown", vgpu(calls(0x20804002))),
    ("vgpu-unknown", "clean-up", vgpu(calls(0x20804008))),
    ("vgpu-cleanup-running", "booted", vgpu(calls(0, 0x20804008))),
    ("vgpu-client-freed", "booted", vgpu(freed_client)),
]  # fmt: skip
