"""What is in one firmware file or ROM dump: the kind is told by the bytes, not by the name.

Owns nothing. Command line only, main thread. Raises only declared errors: FirmwareMissing, FirmwareUnreadable, FormatError and their kinds.
"""

from __future__ import annotations

from typing import Any

from nvcore_fw_gsp.images.errors import FirmwareFormatError
from nvcore_fw_gsp.images.source import FileSource, Source

__all__ = ["inspect_file", "kind_of"]


def kind_of(source: Source) -> str:
    """ "gsp", "fmc", "ucode", "riscv", "generic" or "rom". Raises FirmwareFormatError for anything else."""
    from nvcore_fw_gsp.images.container import BinHeader

    head = source.read(0, min(64, source.size), "beginning of the file")
    if head[:5] == b"\x7fELF\x02":
        return "gsp"
    if head[:5] == b"\x7fELF\x01":
        return "fmc"
    if head[:2] in (b"\x55\xaa", b"\x4e\x56", b"\x77\xbb"):
        return "rom"
    if head[:4] == b"\xde\x10\0\0":
        header = BinHeader(source)
        first = int.from_bytes(source.read(header.header_offset, 4, "header of its kind"), "little")
        if first in (4, 5, 6):
            return "riscv"
        return "generic" if first == 0xFD else "ucode"
    raise FirmwareFormatError(
        "no firmware file and no ROM dump",
        expected="an ELF file, a container with magic 0x10de, or 55 aa",
        seen=head[:8].hex(" ") or "nothing",
        where=source.name,
        remedy="for a ROM dump with something before the ROM, give --offset",
    )


def inspect_file(path: str, offset: int | None = None) -> dict[str, Any]:
    """What a file holds, as names and plain values; "kind" first. offset: where a ROM dump's first image begins."""
    with FileSource(path) as source:
        if offset is not None:
            return _rom(source, offset)
        kind = kind_of(source)
        fields = {"gsp": _gsp, "fmc": _fmc, "ucode": _ucode, "riscv": _riscv, "generic": _generic, "rom": _rom}[kind](source)
    return {"kind": kind, "file": path, "bytes": source.size, **fields}


def _gsp(source: Source) -> dict[str, Any]:
    from nvcore_fw_gsp.images.gsp import GspImage

    image = GspImage(source)
    return {
        "release": image.version,
        "provenance": image.kind,
        "build_id": image.build_id or None,
        "image_bytes": image.size,
        "signatures": list(image.signatures),
    }


def _fmc(source: Source) -> dict[str, Any]:
    from nvcore_fw_gsp.images.fmc import Fmc

    fmc = Fmc(source)
    return {
        "image_bytes": fmc.size,
        "sha384": fmc.hash.hex(),
        "signature_bytes": len(fmc.signature),
        "public_key_bytes": len(fmc.public_key),
    }


def _ucode(source: Source) -> dict[str, Any]:
    from nvcore_fw_gsp.images.container import HsUcode

    ucode = HsUcode(source)
    return {
        "image_bytes": ucode.size,
        "code": list(ucode.code),
        "data": list(ucode.data),
        "secure_code": [list(app[:2]) for app in ucode.apps],
        "signatures": ucode.signatures,
        "signature_bytes": ucode.signature_size,
        "patch_location": ucode.patch_location,
        "fuse_version": ucode.fuse_version,
        "engine_mask": ucode.engine_mask,
        "ucode_id": ucode.ucode_id,
    }


def _riscv(source: Source) -> dict[str, Any]:
    from nvcore_fw_gsp.images.container import RiscvUcode

    ucode = RiscvUcode(source)
    names = (
        "size",
        "version",
        "app_version",
        "code_offset",
        "code_size",
        "data_offset",
        "data_size",
        "manifest_offset",
        "manifest_size",
        "fb_reserved",
    )
    return {
        ("image_bytes" if name == "size" else "descriptor_version" if name == "version" else name): getattr(ucode, name) for name in names
    }


def _generic(source: Source) -> dict[str, Any]:
    from nvcore_fw_gsp.images.container import GenericBootloader

    loader = GenericBootloader(source)
    return {"image_bytes": loader.size, "start_tag": loader.start_tag, "code": list(loader.code), "data": list(loader.data)}


def _rom(source: Source, offset: int | None = None) -> dict[str, Any]:
    from nvcore_fw_gsp.vbios.bit import read_vbios
    from nvcore_fw_gsp.vbios.errors import VbiosError
    from nvcore_fw_gsp.vbios.fwsec import Fwsec
    from nvcore_fw_gsp.vbios.rom import image_chain, open_rom

    rom = open_rom(source.name, lambda at, size: source.read(at, size, "ROM"), source.size, offset)
    fields: dict[str, Any] = {"kind": "rom", "first_image": rom.start, "images": [str(image) for image in image_chain(rom)]}
    try:
        vbios = read_vbios(rom)
        fwsec = Fwsec(vbios, debug=0x85 not in vbios.fwsec and 0x05 not in vbios.fwsec)
    except VbiosError as error:  # a ROM may be sound and hold none: that is an answer here
        return {**fields, "fwsec": str(error)}
    return {
        **fields,
        "version": vbios.version or None,
        "fwsec": f"descriptor version {fwsec.version}",
        "fwsec_applications": [f"{number:#04x}" for number in vbios.fwsec],
        "fwsec_code_bytes": fwsec.imem_size,
        "fwsec_data_bytes": fwsec.dmem_size,
        "fwsec_signatures": fwsec.signature_count,
    }
