"""What the signed boot programs do: booter and FWSEC on the falcons, the FMC behind the security processor.

Owns the state of WPR2 and the saved layout. Decides whether the firmware may start and starts it. The programs' bytes are not executed:
their effects are. Runs under the device's lock.
Source: gsp-boot.md 5.8, 7, 10; device-model.md 5.4 to 5.6, 14.5 (Linux 7.3 nouveau; open-gpu-kernel-modules 570.144). Error numbers in
mailbox 0 are model conventions (`wpr.REFUSALS`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha384
from typing import Final, Protocol

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.falcon import Falcon
from nvcore_softgpu.faults import ArmedFaults, value_of
from nvcore_softgpu.ports import Aperture, Environment, Gsp, ImageShelf
from nvcore_softgpu.prepared import check_booter_code, check_context, check_loader_code, check_prepared
from nvcore_softgpu.programs import BootProgram
from nvcore_softgpu.registers.file import OGKM, RegisterFile
from nvcore_softgpu.vbios import DMAP, FWSEC_FRTS, FWSEC_SB, Fwsec, Rom
from nvcore_softgpu.wpr import (
    WPR_MAGIC,
    BootRefusal,
    check_bootloader,
    check_image,
    check_layout,
    check_sources,
    choose_layout,
    parse_meta,
)  # fmt: skip

__all__ = ["SUSPEND_MAGIC", "BootFirmware"]

SUSPEND_MAGIC: Final = 0x8A3BB9E6C6C39D93
"""First word of the structure that describes a saved region (GspFwSRMeta)."""

VERIFIED: Final = 0xA0A0A0A0A0A0A0A0
UNLOAD: Final = 0xFF000000FF
_SYSTEM: Final = Aperture.SYSTEM
_VRAM: Final = Aperture.VRAM
WPR2_LO, WPR2_HI = 0x1FA824, 0x1FA828
SCRATCH: Final = 0x001400


class Gpu(Environment, Protocol):
    """What the boot programs see of the model: what the firmware sees, and the blocks that they drive."""

    @property
    def faults(self) -> ArmedFaults:
        """Armed faults, and those that acted."""
        ...

    @property
    def chip(self) -> Chip:
        """The row."""
        ...

    @property
    def gsp(self) -> Gsp:
        """The firmware."""
        ...

    @property
    def shelf(self) -> ImageShelf | None:
        """Known images."""
        ...

    @property
    def programs(self) -> Sequence[BootProgram]:
        """Known boot programs; empty when there are no files to compare with."""
        ...

    @property
    def rom(self) -> Rom | None:
        """The ROM, on chips that have one."""
        ...

    @property
    def gsp_falcon(self) -> Falcon:
        """The GSP's falcon."""
        ...

    @property
    def sec2(self) -> Falcon | None:
        """SEC2, where it loads the firmware."""
        ...

    def gsp_started(self) -> None:
        """The firmware runs: BAR1 goes to its directory."""
        ...

    def gsp_stopped(self) -> None:
        """The firmware was unloaded: BAR1 and BAR2 are physical again."""
        ...


class BootFirmware:
    """Booter, FWSEC and FMC of one GPU. wpr2: (start, end) while the protected region is up, else None."""

    def __init__(self, gpu: Gpu, registers: RegisterFile) -> None:
        self._gpu = gpu
        self._values = registers.values
        self.wpr2: tuple[int, int] | None = None
        self.meta: dict[str, int] = {}
        self.suspended = False
        self._restored = False  # FWSEC-SB ran since the firmware started
        self._orphaned = False
        self._faults_before = 0
        self._flush_page = 0
        self._awaited = False
        self._version: int | None = None
        source = OGKM + " dev_fb.h"
        (low, what), (high, rest) = gpu.chip.flush_page
        registers.stored(high, "SYSMEM_FLUSH_PAGE_HI", f"flush page: {rest}", source)
        registers.handled(low, "SYSMEM_FLUSH_PAGE_LO", f"flush page: {what}; latches both", source, write=self._latch_flush_page)
        registers.handled(WPR2_LO, "PFB_WPR2_ADDR_LO", "start of WPR2 >> 12, bits 31:4", source, write=self._protected)
        registers.handled(WPR2_HI, "PFB_WPR2_ADDR_HI", "end of WPR2 >> 12, bits 31:4; 0 = none", source, write=self._protected)

    def _latch_flush_page(self, offset: int, value: int) -> None:
        """The low half makes the address that of the page: drivers write the high half before."""
        self._values[offset] = value
        high = self._values[self._gpu.chip.flush_page[1][0]]
        self._flush_page = value << 8 | high << 40 if self._gpu.chip.flow == "booter" else value & ~0xFF | high << 32

    def _protected(self, offset: int, value: int) -> None:
        self._gpu.violations.violation("write-to-protected", f"register {offset:#x} <- {value:#x}")

    def _set_wpr2(self, region: tuple[int, int] | None) -> None:
        if region is None and self.wpr2 is not None and self._gpu.faults.take("wpr2-left-up") is not None:
            region = self.wpr2
        self.wpr2 = region
        self._values[WPR2_LO] = 0 if region is None else region[0] >> 12 << 4
        self._values[WPR2_HI] = 0 if region is None else region[1] >> 12 << 4

    def reset(self) -> None:
        """A function-level reset: the region comes down, unless a fault holds it up."""
        region, gpu = self.wpr2, self._gpu
        lingers = None if region is None else gpu.faults.take("wpr2-lingers")
        if lingers is None:
            self._set_wpr2(None)
        else:
            self._set_wpr2(region)
            gpu.ticker.call_at(gpu.ticker.now() + float(lingers or "1"), lambda: self._set_wpr2(None) if self.wpr2 is region else None)
        self.meta = {}
        self.suspended = False
        self._flush_page = 0
        self._awaited = False

    def startup_awaited(self) -> None:
        """A driver read that the start-up firmware is done: until then no program may be started, of whoever's."""
        self._awaited = True

    def _check_startup(self) -> None:
        if not self._awaited:
            self._gpu.violations.violation("startup-unawaited", "a boot program before the start-up firmware was seen to be done")

    # --- booter on SEC2 -----------------------------------------------------------------------------------------------------------

    def start_sec2(self) -> None:
        """SEC2 was started."""
        gpu = self._gpu
        falcon = gpu.sec2
        if falcon is None or gpu.faults.take("booter-halt") is not None:
            return  # it never halts
        injected = gpu.faults.take("booter-mailbox")
        if injected is not None:
            falcon.set_mailbox(0, value_of(injected, 0x1234))
            falcon.set_mailbox(1, 0)
            falcon.halted = True
            return
        try:
            self._booter(falcon)
            falcon.set_mailbox(0, 0)
            falcon.set_mailbox(1, 0)
        except BootRefusal as refusal:
            gpu.violations.violation(refusal.name, f"booter: {refusal}")
            falcon.set_mailbox(0, refusal.code)
        falcon.halted = True

    def _booter(self, falcon: Falcon) -> None:
        self._check_startup()
        check_booter_code(falcon)
        check_prepared(falcon, self._gpu.chip)
        address = falcon.mailbox()
        if address == UNLOAD:
            self._check_program(falcon, "unload")
            self._unload()
            return
        magic = int.from_bytes(self._gpu.memory.read(_SYSTEM, address, 8), "little")
        if magic == WPR_MAGIC:
            self._check_program(falcon, "load")
            self._load(address)
        elif magic == SUSPEND_MAGIC:
            self._check_program(falcon, "load" if self.wpr2 is None else "unload")
            self._suspend_or_resume(address)
        else:
            raise BootRefusal(0x0A, "booter-mailbox", f"mailboxes {address:#x} lead to magic {magic:#x}")

    def _check_program(self, falcon: Falcon, role: str) -> None:
        """What was loaded must be a booter of the folder, for this purpose, with its signature in place; without files, anything is."""
        programs = self._gpu.programs
        if not programs:
            return
        loaded = [program for program in programs if program.matches_code(falcon.imem)]
        if not loaded:
            raise BootRefusal(0x06, "boot-program", "the code in SEC2 is that of no booter in the folder")
        fitting = [program for program in loaded if program.role == role]
        if not fitting:
            raise BootRefusal(0x09, "boot-program", f"booter_{loaded[0].role} was loaded where booter_{role} belongs")
        if not any(program.matches_data(falcon.dmem) for program in fitting):
            raise BootRefusal(0x06, "bad-signature", f"data or signature of booter_{role} is not that of the file")

    def _load(self, address: int) -> None:
        gpu = self._gpu
        if self.wpr2 is not None:
            raise BootRefusal(0x08, "wpr2-already-up", f"WPR2 {self.wpr2[0]:#x} to {self.wpr2[1]:#x} before the boot")
        if gpu.gsp_falcon.in_reset or not gpu.gsp_falcon.clean:  # not at a resume: nouveau lets FWSEC-SB be the last that ran
            how = "is held in reset" if gpu.gsp_falcon.in_reset else "was not reset since it ran last"
            raise BootRefusal(0x0C, "gsp-not-reset", f"the GSP {how}")
        raw = gpu.memory.read(_SYSTEM, address, 256)
        meta = parse_meta(raw)
        check_sources(meta)
        check_layout(meta, gpu.chip, gpu.memory.vram_size)
        self._accept(meta, raw)
        self._run(meta, gpu.gsp_falcon.mailbox())

    def _accept(self, meta: dict[str, int], raw: bytes) -> None:
        """Signature and image; then WPR2 goes up and the verified copy of the meta lies at its start."""
        gpu = self._gpu
        if gpu.faults.take("bad-signature") is not None:
            raise BootRefusal(0x06, "injected", "bad-signature")
        known = check_image(gpu.memory, gpu.violations, meta, gpu.chip, gpu.shelf)
        file = check_bootloader(gpu.memory, meta, gpu.chip, known, gpu.shelf)
        self._version = None if file is None else file.app_version
        self._set_wpr2((meta["gspFwWprStart"], meta["gspFwWprEnd"]))
        gpu.memory.write(_VRAM, meta["gspFwWprStart"], raw[:248] + struct.pack("<Q", VERIFIED))
        self.meta = meta

    def _run(self, meta: dict[str, int], arguments: int) -> None:
        """Release the RISC-V core."""
        gpu = self._gpu
        falcon = gpu.gsp_falcon
        if gpu.faults.take("riscv-inactive") is not None:
            return
        falcon.riscv_active = True
        falcon.riscv_halted = falcon.clean = falcon.version_written = False
        self._firmware_starts()
        falcon.lockdown = falcon.lockdown and gpu.faults.take("lockdown-stuck") is not None
        gpu.gsp.stop()
        self.suspended = False
        gpu.gsp_started()
        reason = gpu.gsp.start(meta, arguments)
        if reason is not None:
            falcon.riscv_active = False
            gpu.gsp_stopped()
            raise BootRefusal(0x0B, "gsp-not-started", reason)

    def _firmware_starts(self) -> None:
        """From here on the firmware reaches host memory, and a driver owes it an orderly end."""
        gpu = self._gpu
        address = self._flush_page
        if not address or not gpu.memory.reachable(_SYSTEM, address, 256):
            gpu.violations.violation("flush-page", f"the flush page at {address:#x} is not host memory when the firmware starts")
        self._restored, self._orphaned, self._faults_before = False, False, len(gpu.faults.acted)

    def orderly(self) -> bool:
        """Whether the running firmware is owed an order: its driver is still there, and no fault came between them."""
        return not (self._orphaned or self._gpu.faults.armed() or len(self._gpu.faults.acted) > self._faults_before)

    def check_version(self, falcon: Falcon) -> None:
        """The firmware is spoken to: what its bootloader is called should stand in OS by now."""
        found = falcon.register(0x80)
        if not falcon.version_written or self._version not in (None, found):
            wanted = "" if self._version is None else f", the bootloader's version is {self._version:#x}"
            self._gpu.violations.violation("version-unwritten", f"the firmware runs and OS is {found:#x}{wanted}")
        falcon.version_written, self._version = True, None

    def driver_left(self) -> None:
        """Bus mastering went off: whoever drove the firmware is gone, with the memory that they shared."""
        self._orphaned = True

    def _check_restored(self) -> None:
        """FWSEC-SB comes before the region goes: it puts back what the firmware's start changed."""
        if self._gpu.chip.fwsec and self.wpr2 is not None and not self._restored and self.orderly():
            self._gpu.violations.violation("unload-without-sb", "the protected region is taken down and FWSEC-SB did not run")

    def _check_ended(self) -> None:
        """The firmware was told to end, or to save itself, before its memory goes."""
        gpu = self._gpu
        if gpu.gsp.running:
            gpu.violations.violation("unload-running-gsp", "booter_unload while the firmware runs")
            gpu.gsp.stop()
            gpu.gsp_stopped()
        self._check_restored()

    def _unload(self) -> None:
        gpu = self._gpu
        self._check_ended()
        gpu.gsp.stop()
        gpu.gsp_stopped()
        self.suspended = False
        self._set_wpr2(None)

    def _suspend_or_resume(self, address: int) -> None:
        """The same meta serves both: WPR2 up means suspend."""
        gpu = self._gpu
        revision = int.from_bytes(gpu.memory.read(_SYSTEM, address + 8, 8), "little")
        if revision != 2:
            raise BootRefusal(0x02, "suspend-meta-revision", f"revision {revision}")
        if self.wpr2 is not None:
            self._check_ended()
            self.suspended = True
            self._set_wpr2(None)
            return
        self._resume()

    def _resume(self) -> None:
        gpu = self._gpu
        if not self.suspended or not self.meta:
            raise BootRefusal(0x0A, "resume-without-suspend", "nothing was suspended")
        self._set_wpr2((self.meta["gspFwWprStart"], self.meta["gspFwWprEnd"]))
        falcon = gpu.gsp_falcon
        falcon.riscv_active, falcon.riscv_halted, falcon.lockdown = True, False, False
        falcon.clean = falcon.version_written = False
        self.suspended = False
        self._firmware_starts()
        reason = gpu.gsp.resume()
        if reason is not None:
            falcon.riscv_active = False
            raise BootRefusal(0x0B, "gsp-not-resumed", reason)

    def firmware_halted(self) -> None:
        """The firmware ended in order on a chip without booter: what the FMC protected comes down.

        Whether it was a suspend shows at the next start; until then both windows stay as they are.
        """
        if self._gpu.chip.flow == "fsp":
            self.suspended = True
            self._set_wpr2(None)

    # --- FWSEC on the GSP falcon --------------------------------------------------------------------------------------------------

    def start_gsp(self) -> None:
        """The GSP falcon was started as a falcon: FWSEC when something is loaded, otherwise it halts (nova-core does that)."""
        gpu = self._gpu
        falcon = gpu.gsp_falcon
        if falcon.code_words:
            injected = gpu.faults.take("fwsec-error")
            self._check_startup()
            try:
                if gpu.rom is None:
                    raise BootRefusal(0x09, "fwsec-without-rom", "this chip has no FWSEC")
                check_loader_code(falcon)
                check_prepared(falcon, gpu.chip)
                self._fwsec(falcon, gpu.rom.fwsec, 0 if injected is None else value_of(injected, 0x21))
            except BootRefusal as refusal:
                gpu.violations.violation(refusal.name, f"FWSEC: {refusal}")
                falcon.set_mailbox(0, refusal.code)
        falcon.halted = True

    def _fwsec(self, falcon: Falcon, own: Fwsec, error: int) -> None:
        data = self._fwsec_data(falcon, own)
        entries = data[own.interface + 3]
        mapper = 0
        for index in range(min(entries, (len(data) - own.interface - 4) // 8)):
            kind, offset = struct.unpack_from("<II", data, own.interface + 4 + 8 * index)
            mapper = offset if kind == 4 else mapper
        if mapper + 64 > len(data) or int.from_bytes(data[mapper : mapper + 4], "little") != DMAP:
            raise BootRefusal(0x0A, "fwsec-interface", "no command mapper in the data image")
        command = int.from_bytes(data[mapper + 0x2C : mapper + 0x30], "little")
        place = int.from_bytes(data[mapper + 8 : mapper + 12], "little")
        if place + 44 > len(data):
            raise BootRefusal(0x0A, "fwsec-command", f"command buffer at {place:#x}, outside the data image")
        version, size = struct.unpack_from("<II", data, place)
        if (version, size) != (1, 24):
            raise BootRefusal(0x0A, "fwsec-command", f"read-VBIOS block version {version}, size {size}")
        if command == FWSEC_FRTS:
            raise BootRefusal(0x05, "frts-command", "the booter of this chip makes the region itself")
        if command == FWSEC_SB:
            self._restored = True  # with an error too: drivers go on then
            self._values[SCRATCH + 4 * 0x15] = error & 0xFFFF
        else:
            raise BootRefusal(0x0A, "fwsec-command", f"command {command:#x}")
        falcon.set_mailbox(0, 0)

    def _fwsec_data(self, falcon: Falcon, own: Fwsec) -> bytes:
        """The data image that the loaded program works on; descriptor version 2 leaves it where the bootloader's descriptor says."""
        gpu = self._gpu
        context, code_base = struct.unpack_from("<IQ", falcon.dmem, 0x20)
        check_context(falcon, context)
        data_base, size = struct.unpack_from("<QI", falcon.dmem, 0x40)
        if size != len(own.data):
            raise BootRefusal(0x04, "fwsec-size", f"data of {size} bytes, {len(own.data)} in the ROM")
        data = gpu.memory.read(_SYSTEM, data_base, size)
        code = gpu.memory.read(_SYSTEM, code_base, len(own.code))
        if code[0x100:] != own.code[0x100:]:  # the secure part is what a boot ROM verifies
            raise BootRefusal(0x06, "fwsec-code", "the secure code is not that of the ROM")
        return data

    # --- FMC behind the security processor ----------------------------------------------------------------------------------------

    def chain_of_trust(self, payload: bytes) -> int:
        """Act on the 860 bytes of a chain-of-trust message; the error code of the reply, 0 for none."""
        gpu = self._gpu
        version, size, fmc, _, _, frts_end, frts_size = struct.unpack_from("<HHQQIQI", payload)
        digest = payload[36:84]
        self._check_startup()
        if version != gpu.chip.cot_version or size != 860:
            gpu.violations.violation("cot-version", f"version {version}, size {size}")
            return 0xA1
        if not any(payload[84:468]) or not any(payload[468:852]):
            gpu.violations.violation("cot-key", "public key or signature is all zero")
            return 0xA1
        if gpu.faults.take("bad-signature") is not None or not self._fmc_matches(fmc, digest):
            gpu.violations.violation("fmc-hash", f"SHA-384 of the image at {fmc:#x} is not the one in the message")
            return 0xA1
        wrong = self._fmc_unlike_file(digest, payload[84:468], payload[468:852])
        if wrong:
            gpu.violations.violation("fmc-differs", wrong)
            return 0xA1
        parameters = int.from_bytes(payload[852:860], "little")
        falcon = gpu.gsp_falcon
        falcon.set_mailbox(0, 0)
        falcon.set_mailbox(1, 0)
        injected = gpu.faults.take("fmc-error")
        if injected is not None:
            falcon.set_mailbox(0, value_of(injected, 0x1234))
            return 0
        try:
            self._fmc(parameters, frts_end, frts_size)
        except BootRefusal as refusal:
            gpu.violations.violation(refusal.name, f"FMC: {refusal}")
            falcon.set_mailbox(0, refusal.code)
        return 0

    def _fmc_matches(self, address: int, digest: bytes) -> bool:
        """The image says its size itself: a header of 0x48 bytes with payload, code and data sizes; the manifest has 0xa00 bytes."""
        header = struct.unpack("<18I", self._gpu.memory.read(_SYSTEM, address, 72))
        sizes = {72 + header[1], header[1], 72 + header[3] + header[5] + 0xA00}
        for size in sorted(sizes):
            if 72 < size <= 1 << 20 and sha384(self._gpu.memory.read(_SYSTEM, address, size)).digest() == digest:
                return True
        return False

    def _fmc_unlike_file(self, digest: bytes, key: bytes, signature: bytes) -> str:
        """What of the message is not that of an FMC of the folder; "" without a folder that has one."""
        gpu = self._gpu
        files = gpu.shelf.fmcs(gpu.chip.name) if gpu.shelf is not None else ()
        same = [file for file in files if file.hash == digest]
        if files and not same:
            return "the image is that of no FMC in the folder"
        if same and not any(key == file.public_key.ljust(384, b"\0") for file in same):
            return "the public key is not the file's"
        if same and not any(signature == file.signature.ljust(384, b"\0") for file in same):
            return "the signature is not the file's"
        return ""

    def _fmc(self, parameters: int, frts_end: int, frts_size: int) -> None:
        gpu = self._gpu
        raw = gpu.memory.read(_SYSTEM, parameters, 80)
        target, meta_size, meta_at = struct.unpack_from("<IIQ", raw, 8)
        arguments = int.from_bytes(raw[48:56], "little")
        carveout = any(raw[24:36])
        libos_target = int.from_bytes(raw[40:44], "little")
        if target not in (1, 2) or libos_target not in (1, 2) or meta_size != 256 or raw[36] != 1 or carveout:
            raise BootRefusal(
                0x0A,
                "fmc-parameters",
                f"targets {target} and {libos_target}, size {meta_size}, GSP-RM boot {raw[36]}, carve-out {carveout}",
            )
        meta_bytes = gpu.memory.read(_SYSTEM, meta_at, 256)
        if int.from_bytes(meta_bytes[:8], "little") == SUSPEND_MAGIC:
            self._resume()
            return
        if self.wpr2 is not None:
            raise BootRefusal(0x08, "wpr2-already-up", "WPR2 is set before the boot")
        meta = parse_meta(meta_bytes)
        check_sources(meta)
        if meta["frtsSize"] != frts_size:
            raise BootRefusal(0x05, "frts-size", f"message {frts_size:#x}, meta {meta['frtsSize']:#x}")
        meta = choose_layout(meta, gpu.chip, gpu.memory.vram_size, frts_end, frts_size)
        self._accept(meta, meta_bytes)
        self._run(meta, arguments)
