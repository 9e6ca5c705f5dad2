"""Wrong steps on the way to a running firmware and back: each returns what the model said, as "name: text"."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace

from nvcore_softgpu.booter import SUSPEND_MAGIC
from tests.softgpu.device_kit import MIB, Driver, Shelf, make_card
from tests.softgpu.test_device_boot import FMC, fsp_boot, image_and_shelf
from tests.softgpu.test_device_programs import container, put

Run = Callable[[], list[str]]
GSP, SEC2, UNLOAD = 0x110000, 0x840000, 0xFF000000FF
HOPPER_IMAGE = b"\x97\x00\x00\x00" * 3000


def said(device) -> list[str]:
    """What the model said, and the end of the device."""
    texts = [f"{violation.name}: {violation.text}" for violation in device.model.violations]
    device.close()
    return texts


def gpu(step: Callable[[Driver], object], chip: str = "GA100", **options) -> Run:
    """A step on a fresh GPU."""

    def run() -> list[str]:
        device, _ = make_card(chip, **options)
        step(Driver(device, image=HOPPER_IMAGE if chip == "GH100" else None))
        return said(device)

    return run


def meta(**changes) -> Run:
    return gpu(lambda driver: driver.boot(**changes))


def booted(step: Callable[[Driver], object]) -> Run:
    """A step after an orderly boot."""

    def both(driver: Driver) -> None:
        assert driver.boot() == 0
        step(driver)

    return gpu(both)


def filed(
    image: bytes | None = None, signature: bytes | None = None, *, bootloader: object = None, step: Callable[[Driver], object] | None = None
) -> Run:
    """A boot with an image of its own, on a GPU that knows the file; then a step."""

    def run() -> list[str]:
        good, sign, _ = image_and_shelf()
        device, _ = make_card(shelf=Shelf(good, sign, ".fwsignature_ga100", bootloader=bootloader))
        driver = Driver(device, good if image is None else image, sign if signature is None else signature)
        driver.boot()
        if step is not None:
            step(driver)
        return said(device)

    return run


def started(base: int, prepare: Callable[[Driver], object], *, address: int = 0) -> Run:
    """A start of a falcon after `prepare`, with a WPR meta in the mailboxes where there is no other address."""

    def step(driver: Driver) -> None:
        where = address or driver.meta()
        driver.reset(GSP)
        driver.reset(base)
        prepare(driver)
        driver.bar0.write32(base + 0x40, where & 0xFFFFFFFF)
        driver.bar0.write32(base + 0x44, where >> 32)
        driver.bar0.write32(base + 0x100, 2)

    return gpu(step)


def loaded(*writes: tuple[int, int], code: bytes = b"\xaa" * 0x400) -> Callable[[Driver], None]:
    """A booter's code, then register writes on top."""

    def prepare(driver: Driver) -> None:
        driver.load(SEC2, code)
        for offset, value in writes:
            driver.bar0.write32(SEC2 + offset, value)

    return prepare


def block(index: int, *, tag: int, secure: bool) -> Callable[[Driver], None]:
    """A booter with one block loaded in another way."""

    def prepare(driver: Driver) -> None:
        driver.load(SEC2)
        driver.bar0.write32(SEC2 + 0x180, 0x01000000 | index << 8 | secure << 28)
        driver.bar0.write32(SEC2 + 0x188, tag)
        driver.bar0.write_port(SEC2 + 0x184, bytes(256))

    return prepare


def fwsec(
    command: int = 0x19, *writes: tuple[int, int], patch: dict[int, bytes] | None = None, dmem: dict[int, int] | None = None,
    secure: bool = False,
) -> Run:  # fmt: skip
    """FWSEC with some of it wrong. writes: GSP registers before the start; patch: bytes of the data image; dmem: words of the loader's."""

    def step(driver: Driver) -> None:
        original = driver.buffer

        def buffer(data: bytes, label: str = "x"):
            if label == "data":
                for offset, value in (patch or {}).items():
                    data = data[:offset] + value + data[offset + len(value) :]
            return original(data, label)

        driver.buffer = buffer
        write = driver.bar0.write32

        def watched(offset: int, value: int) -> None:
            if offset == GSP + 0x100:
                for place, other in writes:
                    write(GSP + place, other)
                for place, word in (dmem or {}).items():
                    write(GSP + 0x1C0, 0x01000000 | place)
                    write(GSP + 0x1C4, word)
            if secure and offset == GSP + 0x180:
                value |= 1 << 28
            write(offset, value)

        driver.bar0 = SimpleNamespace(write32=watched, read32=driver.bar0.read32, write_port=driver.bar0.write_port)
        driver.fwsec(command)

    return gpu(step)


def fsp(**options) -> Run:
    return gpu(lambda driver: fsp_boot(driver.device, driver, **options), "GH100")


def packet(head: int, tail: int, *words: int) -> Run:
    """A packet to the security processor, by hand."""

    def step(driver: Driver) -> None:
        driver.bar0.write32(0x8F2AC0, 1 << 24)
        for word in words:
            driver.bar0.write32(0x8F2AC4, word)
        driver.bar0.write32(0x8F2C04, tail)
        driver.bar0.write32(0x8F2C00, head)

    return gpu(step, "GH100")


def known_fmc(**changes: bytes) -> Run:
    """A chain of trust on a GPU that knows the file of the FMC, which differs in one thing."""

    def run() -> list[str]:
        from hashlib import sha384

        fields = {"image": memoryview(FMC), "hash": sha384(FMC).digest(), "signature": b"s" * 384, "public_key": b"k" * 384} | changes
        signature, fmcs = b"\x01\x00\x02\x00" * 1024, (SimpleNamespace(**fields),)
        device, _ = make_card("GH100", shelf=Shelf(HOPPER_IMAGE, signature, ".fwsignature_gh100", fmcs=fmcs))
        fsp_boot(device, Driver(device, image=HOPPER_IMAGE))
        return said(device)

    return run


def programs(fill: int, address: int = 0, **options: bytes) -> Run:
    """Another booter than the folder's."""

    def run() -> list[str]:
        from nvcore_softgpu.programs import parse_program

        device, _ = make_card()
        roles = {"load": 10, "unload": 20}
        device.card.model.programs = [parse_program(container(number)[0], role, "x") for role, number in roles.items()]
        driver = Driver(device)
        driver.reset(GSP)
        put(driver, fill, address=address or driver.meta(), **options)
        return said(device)

    return run


def list_entry(place: int, value: int) -> Run:
    """A boot whose list of the image's pages (`l1` or `l2`) has another entry."""

    def step(driver: Driver) -> None:
        where = driver.meta()
        table = next(buffer for buffer in driver.buffers if buffer.label == "l2")
        struct.pack_into("<Q", table.view, 8 * place, value)
        driver.reset(GSP)
        driver.run_sec2(where)

    return gpu(step)


def behind_image(driver: Driver) -> None:
    where = driver.meta()
    next(buffer for buffer in driver.buffers if buffer.label == "image").view[len(driver.image)] = 1
    driver.reset(GSP)
    driver.run_sec2(where)


def suspended(revision: int) -> Callable[[Driver], object]:
    return lambda driver: driver.run_sec2(driver.buffer(struct.pack("<QQ", SUSPEND_MAGIC, revision) + bytes(240), "sr").bus_address())


def refusing(name: str) -> Callable[[Driver], object]:
    """The firmware itself says no to a start or to a resume."""

    def step(driver: Driver) -> None:
        model = driver.device.card.model
        setattr(model.gsp, name, lambda *_: "no")
        driver.boot()
        if name == "resume":
            model.gsp.running = False
            driver.fwsec(0x19)
            suspended(2)(driver)
            suspended(2)(driver)

    return step


def unload_running(driver: Driver) -> None:
    driver.run_sec2(UNLOAD)


def unload_without_sb(driver: Driver) -> None:
    driver.device.card.model.gsp.running = False
    driver.run_sec2(UNLOAD)


def suspend_without_sb(driver: Driver) -> None:
    driver.device.card.model.gsp.running = False
    suspended(2)(driver)


def without_flush_page(driver: Driver) -> None:
    driver.bar0.write32(0x100C40, 0)
    driver.bar0.write32(0x100C10, 0)
    driver.boot()


def without_waiting(driver: Driver) -> None:
    driver.device.card.model.function_reset()
    driver.device.set_bus_master(True)
    driver.set_flush_page()
    if driver.device.card.model.chip.flow == "booter":
        driver.boot()
    else:
        fsp_boot(driver.device, driver)


def half_a_flush_page(driver: Driver) -> None:
    """Only the write of the low half makes the address the page's."""
    high = driver.bar0.read32(0x100C40)
    driver.bar0.write32(0x100C40, 0)
    driver.bar0.write32(0x100C10, 0)
    driver.bar0.write32(0x100C40, high)
    driver.boot()


def fwsec_without_rom(driver: Driver) -> None:
    driver.reset(GSP)
    driver.load_generic(GSP)
    driver.bar0.write32(GSP + 0x100, 2)


def start_twice(driver: Driver) -> None:
    driver.reset(SEC2)
    for _ in range(2):
        loaded()(driver)
        driver.bar0.write32(SEC2 + 0x100, 2)


def wrong_version(driver: Driver) -> None:
    driver.bar0.write32(GSP + 0x80, 3)
    driver.bar0.write32(GSP + 0xC00, 0)


def write_pair(driver: Driver, control: int, place: int) -> None:
    """One word through a data port."""
    driver.bar0.write32(control, place)
    driver.bar0.write32(control + 4, 1)


def twice_on_hopper(driver: Driver) -> None:
    fsp_boot(driver.device, driver)
    fsp_boot(driver.device, driver)


def unread_answer(driver: Driver) -> None:
    for _ in range(2):
        driver.bar0.write32(0x8F2C04, 4)
        driver.bar0.write32(0x8F2AC0, 1 << 24)
        driver.bar0.write_port(0x8F2AC4, struct.pack("<II", 0xC0000000, 0x1310DE7E))
        driver.bar0.write32(0x8F2C00, 0)


def boot_and(offset: int, value: int) -> Run:
    return booted(lambda driver: driver.bar0.write32(offset, value))


HOST_HEAP = {name: (lambda value: value - 490 * MIB) for name in ("heap", "start", "other", "reserved")}
OWN_BOOTLOADER = SimpleNamespace(image=b"boot" * 0x400, code=(0, 0), data=(0, 0), manifest=(0, 0), app_version=5)
OTHER_BOOTLOADER = SimpleNamespace(image=b"else" * 0x400, code=(0, 0), data=(0, 0), manifest=(0, 0))

CASES: list[tuple[str, str, Run]] = [
    ("wpr-meta-revision", "2", meta(revision=2)),
    ("wpr-meta-verified", "before the boot", meta(verified=1)),
    ("booter-mailbox", "0x1", meta(magic=1)),
    ("wpr-meta-magic", "0x1", fsp(magic=1)),
    *(
        ("unaligned-wpr", field, meta(**{name: lambda value, by=by: value + by}))
        for name, by, field in (
            ("start", 0x1000, "gspFwWprStart"), ("heap", 0x1000, "gspFwHeapOffset"), ("heap_size", -0x1000, "gspFwHeapSize"),
            ("other", 0x1000, "nonWprHeapOffset"), ("image", 0x1000, "gspFwOffset"), ("bin", -8, "bootBinOffset"),
            ("frts", 8, "frtsOffset"), ("end", 0x1000, "gspFwWprEnd"), ("radix3", 8, "sysmemAddrOfRadix3Elf"),
            ("signature", 8, "sysmemAddrOfSignature"), ("boot", 8, "sysmemAddrOfBootloader"),
        )
    ),
    ("unaligned-wpr", "FRTS", fsp(patch={24: struct.pack("<QI", 2 * MIB + 0x1000, MIB)})),
    ("empty-image", "sizeOfRadix3Elf", meta(size=0)),
    ("empty-image", "sizeOfBootloader", meta(boot_size=0)),
    ("image-size", "sizeOfRadix3Elf 0x10001000", meta(size=(256 << 20) + 0x1000)),
    ("image-size", "sizeOfBootloader 0x101000", meta(boot_size=MIB + 0x1000)),
    ("signature-size", "8 bytes", meta(signature_size=8)),
    ("bootloader-size", "0x800", meta(boot_size=0x800)),
    ("bootloader-offset", "outside", meta(code=0x2000)),
    ("bootloader-offset", "manifest 0x10", meta(manifest=0x10)),
    ("bootloader-offset", "code 0x0", fsp(code=0, data=0)),
    ("bootloader-unmapped", "0x1000", meta(boot=0x1000)),
    ("bootloader-empty", "zeros", gpu(lambda driver: driver.boot(boot=driver.buffer(bytes(4096)).bus_address()))),
    ("bootloader-differs", "not the file's", filed(bootloader=OTHER_BOOTLOADER)),
    ("fb-size", "0x80000000", meta(fb=1 << 31)),
    ("frts-size", "0x100000", meta(frts_size=MIB)),
    ("frts-size", "message", fsp(patch={24: struct.pack("<QI", 2 * MIB, 2 * MIB)})),
    ("wpr-overlap", "heap", meta(heap_size=128 * MIB)),
    ("wpr-overlap", "no room", fsp(heap_size=1 << 30)),
    *(
        ("wpr-layout", field, meta(**{name: value}))
        for name, value, field in (
            ("reserved", 0x123457, "gspFwRsvdStart"), ("other_size", 0, "nonWprHeapSize"), ("vga_size", 0, "vgaWorkspaceSize"),
            ("count", 7, "bootCount"), ("pmu", 0x1820000, "pmuReservedSize"), ("other", lambda value: value - MIB, "nonWprHeapOffset"),
        )
    ),
    ("wpr-layout", "gspFwWprStart", meta(**{name: lambda value: value - MIB for name in ("reserved", "other", "start")})),
    ("wpr-layout", "gspFwWprEnd", meta(**{name: lambda value: value - 0x20000 for name in ("image", "bin", "frts")})),
    ("wpr-layout", "fbSize", fsp(fb=1 << 30)),
    ("wpr-layout", "nonWprHeapSize", fsp(other_size=MIB)),
    ("heap-size", "0 partitions", meta(heap_size=MIB)),
    ("heap-size", "32 partitions", meta(partitions=32)),
    ("heap-partitions", "49", meta(partitions=49, heap_size=554 * MIB, **HOST_HEAP)),
    ("radix3-entry", "entry 1", list_entry(1, 0x123)),
    ("radix3-entry", "entry 0: 0x0", list_entry(0, 0)),
    ("radix3-padding", "level 2", list_entry(511, 0x1000)),
    ("image-format", "not with an ELF", gpu(lambda driver: Driver(driver.device, image=b"\0" * 5000).boot())),
    ("image-padding", "last page", gpu(behind_image)),
    ("image-unknown", "bytes", filed(b"\x7fELF" + bytes(4096))),
    ("image-differs", "page 1", filed(b"".join((image_and_shelf()[0][:5000], b"!", image_and_shelf()[0][5001:])))),
    ("signature-empty", "zero", gpu(lambda driver: Driver(driver.device, signature=bytes(4096)).boot())),
    ("bad-signature", ".fwsignature_ga100", filed(signature=b"else" * 1024)),
    ("bad-signature", "booter_load", programs(10, data=b"!" + container(10)[2][1:])),
    ("injected", "bad-signature", gpu(lambda driver: driver.boot(), faults=("bad-signature",))),
    ("wpr2-already-up", "before the boot", booted(lambda driver: driver.boot())),
    ("wpr2-already-up", "FMC", gpu(twice_on_hopper, "GH100")),
    ("gsp-not-reset", "ran last", gpu(lambda driver: driver.run_sec2(driver.meta()))),
    ("gsp-not-reset", "in reset", started(SEC2, lambda driver: (driver.load(SEC2), driver.bar0.write32(GSP + 0x3C0, 1)))),
    ("frts-command", "itself", fwsec(0x15)),
    ("fwsec-code", "not that of the ROM", gpu(lambda driver: driver.fwsec(0x19, b"evil" * 64))),
    ("fwsec-command", "command 0x77", fwsec(0x77)),
    ("fwsec-command", "version 9", fwsec(patch={0x100: struct.pack("<I", 9)})),
    ("fwsec-command", "outside", fwsec(patch={0x88: struct.pack("<I", 0x2F0)})),
    ("fwsec-interface", "no command mapper", fwsec(patch={0x80: b"NONE"})),
    ("fwsec-interface", "no command mapper", fwsec(patch={0x43: b"\xff", 0x50: bytes(4)})),
    ("fwsec-size", "in the ROM", fwsec(dmem={0x48: 0x200})),
    ("fwsec-without-rom", "no FWSEC", gpu(fwsec_without_rom, "GH100")),
    ("imem-tag", "block 2", started(SEC2, block(2, tag=0, secure=True))),
    ("imem-tag", "starts at", fwsec(0x19, (0x104, 0x1000))),
    ("imem-secure", "block 2 is open", started(SEC2, block(2, tag=2, secure=False))),
    ("imem-secure", "block 0 is secure", started(SEC2, block(0, tag=0, secure=True))),
    ("imem-secure", "generic bootloader", fwsec(secure=True)),
    ("falcon-rm", "0x0", started(SEC2, loaded((0x84, 0)))),
    ("falcon-dma", "FBIF_CTL 0x0", started(SEC2, loaded((0x624, 0)))),
    ("falcon-dma", "DMACTL 0x1", started(SEC2, loaded((0x10C, 1)))),
    ("falcon-dma", "GSP", fwsec(0x19, (0x624, 0))),
    *(("falcon-dma-context", f"context 4 is {config:#x}", fwsec(0x19, (0x610, config))) for config in (0, 1, 4, 7)),
    ("falcon-dma-context", "context 8", fwsec(dmem={0x20: 8})),
    ("start-without-reset", "SEC2", gpu(start_twice)),
    ("start-without-code", "0 words", started(SEC2, lambda driver: None)),
    ("start-without-code", "boot vector 0x100", started(SEC2, loaded((0x104, 0x100)))),
    ("start-without-code", "1 blocks", started(SEC2, loaded(code=b"\xaa" * 256))),
    ("start-in-reset", "SEC2", started(SEC2, lambda driver: driver.bar0.write32(SEC2 + 0x3C0, 1))),
    ("start-running-falcon", "RISC-V", boot_and(GSP + 0x100, 2)),
    ("falcon-memory-outside", "write", gpu(lambda driver: write_pair(driver, GSP + 0x180, 0x10000))),
    ("boot-program", "no booter", programs(10, code=b"\x77" * len(container(10)[1]))),
    ("boot-program", "belongs", programs(20)),
    ("suspend-meta-revision", "1", booted(suspended(1))),
    ("resume-without-suspend", "nothing", gpu(suspended(2))),
    ("gsp-not-started", "no", gpu(refusing("start"))),
    ("gsp-not-resumed", "no", gpu(refusing("resume"))),
    ("unload-running-gsp", "runs", booted(unload_running)),
    ("unload-running-gsp", "runs", booted(suspended(2))),
    ("unload-without-sb", "FWSEC-SB", booted(unload_without_sb)),
    ("unload-without-sb", "FWSEC-SB", booted(suspend_without_sb)),
    ("reset-running-gsp", "serves", booted(lambda driver: driver.reset(GSP))),
    ("version-unwritten", "OS is 0x0", boot_and(0x110C00, 0)),
    ("version-unwritten", "OS is 0x3, the bootloader's version is 0x5", filed(bootloader=OWN_BOOTLOADER, step=wrong_version)),
    ("startup-unawaited", "before", gpu(without_waiting)),
    ("startup-unawaited", "before", gpu(without_waiting, "GH100")),
    ("flush-page", "0x0", gpu(without_flush_page)),
    ("flush-page", "0x0", gpu(half_a_flush_page)),
    ("cot-version", "version 2", fsp(version=2)),
    ("cot-version", "size 8", fsp(patch={2: struct.pack("<H", 8)})),
    ("cot-key", "zero", fsp(patch={84: bytes(384)})),
    ("cot-key", "zero", fsp(patch={468: bytes(384)})),
    ("fmc-hash", "SHA-384", fsp(fmc=FMC[:-1] + b"!")),
    ("fmc-differs", "no FMC", known_fmc(hash=bytes(48))),
    ("fmc-differs", "public key", known_fmc(public_key=b"q" * 384)),
    ("fmc-differs", "signature", known_fmc(signature=b"q" * 96)),
    ("fmc-parameters", "targets 0", fsp(boot_patch={8: bytes(4)})),
    ("fmc-parameters", "and 0", fsp(boot_patch={40: bytes(4)})),
    ("fmc-parameters", "boot 0", fsp(boot_patch={36: b"\0"})),
    ("fmc-parameters", "carve-out True", fsp(boot_patch={24: b"\1"})),
    ("fsp-packet", "head 0x0, tail 0x2000", packet(0, 0x2000)),
    ("fsp-packet", "headers", packet(0, 4, 0x40000000, 0x1410DE7E)),
    ("fsp-packet", "chain of trust", packet(0, 4, 0xC0000000, 0x1410DE7E)),
    ("fsp-unread-answer", "not taken", gpu(unread_answer, "GH100")),
    ("emem-outside", "0x400", gpu(lambda driver: write_pair(driver, 0x8F2AC0, 0x400), "GH100")),
]  # fmt: skip
