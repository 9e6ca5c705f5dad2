"""Writes small firmware files in the published containers, from the formats alone: shares no code with the parsers under test."""

import hashlib
import os
import struct
import zlib


def elf64(sections: dict[str, bytes], *, machine: int = 0xF3, kind: int = 1) -> bytes:
    names = b"\0" + b"".join(n.encode() + b"\0" for n in [*sections, ".shstrtab"])
    body, rows = b"", [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    at = 1
    for name, data in [*sections.items(), (".shstrtab", names)]:
        rows.append(struct.pack("<IIQQQQIIQQ", at, 3 if name == ".shstrtab" else 1, 0, 0, 0x40 + len(body), len(data), 0, 0, 1, 0))
        body += data
        at += len(name) + 1
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 0, 0x40 + len(body), 0, 64, 0, 0, 64, len(rows), len(rows) - 1)
    return head + body + b"".join(rows)


def gsp(
    version: str = "570.144", families: tuple[str, ...] = ("ga100", "tu10x"), image: bytes = b"\x97" * 10000, build_id: bytes = b"\1" * 20
) -> bytes:
    sections = {".fwimage": image}
    if build_id:
        sections[".note.gnu.build-id"] = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    sections[".fwversion"] = version.encode() + b"\0"
    for family in families:
        sections[f".fwsignature_{family}"] = family.encode().ljust(4096, b"\0")
    return elf64(sections)


def elf32(sections: dict[str, bytes]) -> bytes:
    names = b"\0.shstrtab\0" + b"".join(n.encode() + b"\0" for n in sections)
    count = len(sections) + 2
    start = 0x34 + count * 40
    rows, body, at = [bytes(40), struct.pack("<10I", 1, 3, 0x20, 0, start, len(names), 0, 0, 1, 0)], names, 11
    for name, data in sections.items():
        body += bytes(-len(body) % 4)
        rows.append(struct.pack("<10I", at, 1, 0xFFF00102, 0, start + len(body), len(data), 0, zlib.crc32(data), 4, 0))
        body += data
        at += len(name) + 1
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    return ident + struct.pack("<HHIIIIIHHHHHH", 0, 0, 1, 0, 0, 0x34, 0, 52, 0, 0, 40, count, 1) + b"".join(rows) + body


def fmc(image: bytes = b"\x55" * 600, key: int = 384, signature: int = 384) -> bytes:
    digest = hashlib.sha384(image).digest()
    return elf32({"hash": digest, "signature": b"s" * signature, "publickey": b"k" * key, "image": image})


def container(header: bytes, data: bytes, *, header_at: int = 0x18, middle: bytes = b"") -> bytes:
    data_at = header_at + len(header) + len(middle)
    total = -(-(data_at + len(data)) // 256) * 256
    return struct.pack("<6I", 0x10DE, 1, total, header_at, data_at, len(data)).ljust(header_at, b"\0") + header + middle + data


def hs(
    *,
    size: int = 0x1000,
    data_at: int = 0x800,
    patch: int = 0xA00,
    signatures: int = 2,
    signature: int = 384,
    meta: tuple[int, int, int] = (1, 1, 3),
) -> bytes:
    area = b"".join(bytes([0xA0 + i]) * signature for i in range(signatures))
    base = 0x18 + 36
    words = base + len(area)
    middle = area + struct.pack("<III", patch, 0, signatures) + struct.pack("<3I", *meta)
    load = words + 24
    middle += struct.pack("<5I4I", 0, 0x100, data_at, size - data_at, 1, 0x100, data_at - 0x100, 0x100, 0)
    header = struct.pack("<9I", base, len(area), words, words + 4, words + 12, 12, words + 8, load, 36)
    return container(header, bytes(i * 7 % 251 for i in range(size)), middle=middle)


def riscv(version: int = 5, size: int = 0x6000) -> bytes:
    length = {4: 76, 5: 84, 6: 92}.get(version, 84)
    words = [version, 0x5000, 0x880, 0x5880, 0x10, 0, 0, 7, 0, 0x800, 0x800, 0x1000, 0x1800, 0x2900, 1] + [0] * 4 + [0x6000, 0, 0, 0]
    return container(struct.pack(f"<{length // 4}I", *words[: length // 4]), bytes(size))


def generic(form: str = "gen") -> bytes:
    header = struct.pack("<6I", 0xFD, 0, 0, 0x200, 0x200, 0x100)
    data = bytes(i % 256 for i in range(0x300))
    return container(header, data) if form == "gen" else container(header.ljust(0x100, b"\0"), data, header_at=0x100)


def write_set(root: str, chip: str = "ga100", version: str = "570.144", **changes: bytes | None) -> str:
    """A set of files for a chip of the booter kind; a change of None leaves a file out."""
    folder = os.path.join(root, chip, "gsp")
    os.makedirs(folder, exist_ok=True)
    files: dict[str, bytes | None] = {
        "gsp": gsp(version), "bootloader": riscv(4), "booter_load": hs(signatures=1), "booter_unload": hs(signatures=1),
        "gen_bootloader": generic(), **changes,
    }  # fmt: skip
    for role, data in files.items():
        if data is not None:
            with open(os.path.join(folder, f"{role}-{version}.bin"), "wb") as file:
                file.write(data)
    return folder
