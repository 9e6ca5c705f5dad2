"""The synthetic ROM: what a driver finds at PROM.

Owns the generator of one ROM for a chip with FWSEC: IFR header where the chip has one, then PC-AT, EFI and two extended images with BIT,
the ucode table and a FWSEC descriptor. At most 16 KiB, because drivers read it word by word. Pure functions; any thread.
Source: gsp-boot.md 2 (nova-core vbios.rs; open-gpu-kernel-modules 570.144 kernel_gsp_vbios_tu102.c); device-model.md 8 (Linux 7.3 nouveau
nvkm/subdev/bios). No byte of a real ROM is in it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from nvcore_softgpu.chips import Chip

__all__ = ["DMAP", "FWSEC_FRTS", "FWSEC_SB", "Fwsec", "Rom", "build_rom"]

DMAP: Final = 0x50414D44
"""Signature "DMAP" of the interface through which a driver gives FWSEC its command."""

FWSEC_FRTS: Final = 0x15
"""FWSEC's command: make the region that GSP firmware is loaded into."""

FWSEC_SB: Final = 0x19
"""FWSEC's command: after the firmware is gone."""

IFR_SIZE: Final = 0x200
PCAT_SIZE: Final = 0x600
EFI_SIZE: Final = 0x200
FIRST_E0_SIZE: Final = 0x200
BIT_AT: Final = 0x1B0  # where one public driver expects it without a search
INTERFACE_AT: Final = 0x40
DMAP_AT: Final = 0x80
COMMAND_AT: Final = 0x100
VERSION: Final = bytes((0x11, 0x22, 0x00, 0x92, 0x01))  # micro, minor, chip, major, patch


class Fwsec(NamedTuple):
    """The FWSEC ucode of a ROM, as its own boot ROM would know it: code, data, and where the interface header lies in the data."""

    code: bytes
    data: bytes
    interface: int


class Rom(NamedTuple):
    """A ROM and the ucode inside it."""

    data: bytes
    fwsec: Fwsec


def _filler(size: int, seed: int) -> bytes:
    """Bytes that look like nothing and are the same every time (the generator of Numerical Recipes, 32 bits)."""
    words = bytearray()
    state = seed
    while len(words) < size:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        words += struct.pack("<I", state)
    return bytes(words[:size])


def _image(chip: Chip, size: int, code_type: int, last: bool, body: dict[int, bytes]) -> bytearray:
    """A PCI ROM image: header, PCIR at 0x20, NPDE behind it, `body` by offset."""
    image = bytearray(size)
    image[0:3] = bytes((0x55, 0xAA, size // 512))
    struct.pack_into("<H", image, 0x18, 0x20)
    end = 0x80 if last else 0
    struct.pack_into(
        "<4sHHHHB3sHHBBH", image, 0x20, b"PCIR", 0x10DE, chip.device_id, 0, 0x18, 0, b"\x00\x02\x03", size // 512, 0, code_type, end, 0
    )
    struct.pack_into("<4sHHHB", image, 0x40, b"NPDE", 0x101, 0x10, size // 512, end)
    for offset, data in body.items():
        image[offset : offset + len(data)] = data
    return image


def _bit(table_pointer: int) -> dict[int, bytes]:
    """The BIT header, three tokens and their data, for the PC-AT image."""
    tokens = ((0x42, 2, 0x06, 0x200), (0x69, 2, 0x06, 0x210), (0x70, 2, 0x04, 0x220))
    header = bytearray(struct.pack("<H4sHBBBB", 0xB8FF, b"BIT\0", 0x0100, 12, 6, len(tokens), 0))
    header[11] = -sum(header) & 0xFF
    body = bytes(header) + b"".join(struct.pack("<BBHH", *token) for token in tokens)
    version = struct.pack("<IB", 0x92002211, 0x01) + b"\0"
    return {BIT_AT: body, 0x200: version, 0x210: VERSION + b"\0", 0x220: struct.pack("<I", table_pointer)}


def _fwsec(seed: int) -> Fwsec:
    """The ucode: 256 bytes of open code, 256 of secure code, 768 of data with the interface header and the command mapper."""
    data = bytearray(_filler(0x300, seed + 1))
    data[INTERFACE_AT : INTERFACE_AT + 0x40] = bytes(0x40)
    struct.pack_into("<BBBBIIII", data, INTERFACE_AT, 1, 4, 8, 2, 1, 0x200, 4, DMAP_AT)
    data[DMAP_AT : DMAP_AT + 0x40] = bytes(0x40)
    struct.pack_into("<IHHIIII", data, DMAP_AT, DMAP, 3, 64, COMMAND_AT, 0x40, COMMAND_AT + 0x40, 0x40)
    data[COMMAND_AT : COMMAND_AT + 0x80] = bytes(0x80)
    return Fwsec(_filler(0x200, seed), bytes(data), INTERFACE_AT)


def build_rom(chip: Chip, *, wrong_checksum: bool = False, without_fwsec: bool = False) -> Rom:
    """The ROM of a chip whose row asks for FWSEC descriptor version 2. The two switches are faults."""
    fwsec = _fwsec(chip.boot0)
    table_at, descriptor_at = 0x60, 0x80
    base = PCAT_SIZE + FIRST_E0_SIZE  # pointers count as if the extended images followed the PC-AT image
    kind = 0x01 if without_fwsec else 0x85
    table = struct.pack("<BBBBBB", 1, 6, 6, 2, 2, 60) + struct.pack("<BBI", 0x04, 0, 0) + struct.pack("<BBI", kind, 0, base + descriptor_at)
    descriptor = struct.pack(
        "<15I", 60 << 16 | 2 << 8 | 1, len(fwsec.code) + len(fwsec.data), len(fwsec.code) + len(fwsec.data), 0, fwsec.interface, 0,
        len(fwsec.code), 0, 0x100, 0x100, len(fwsec.code), 0, len(fwsec.data), 0, 0,
    )  # fmt: skip
    body = descriptor + fwsec.code + fwsec.data
    second = -(-(descriptor_at + len(body)) // 512) * 512
    pcat = _image(chip, PCAT_SIZE, 0x00, False, _bit(base + table_at))
    pcat[-1] = (-sum(pcat) + (1 if wrong_checksum else 0)) & 0xFF
    efi = _image(chip, EFI_SIZE, 0x03, False, {})
    first_e0 = _image(chip, FIRST_E0_SIZE, 0xE0, False, {})
    second_e0 = _image(chip, second, 0xE0, True, {table_at: table, descriptor_at: body})
    rom = bytes(pcat + efi + first_e0 + second_e0)
    if chip.ifr:
        header = bytearray(IFR_SIZE)
        struct.pack_into("<4sII", header, 0, b"NVGI", 0x10 << 16 | 1 << 8, IFR_SIZE)
        struct.pack_into("<I", header, 0x10 + 4, IFR_SIZE)
        rom = bytes(header) + rom
    return Rom(rom, fwsec)
