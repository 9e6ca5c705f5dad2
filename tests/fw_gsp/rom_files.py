"""Writes small ROMs of every form, from the formats alone: shares no code with the parser under test, nor with the software GPU."""

import struct


def image(
    body: bytes, code_type: int, *, last: bool = False, npde: int | None = None, signature: bytes = b"PCIR", npde_length: int = 16
) -> bytes:
    """One image; npde: its own length in blocks (the PCIR then says one more), None = no NPDE."""
    pcir_at, blocks = 0x1C, -(-(0x60 + len(body)) // 512)
    data = bytearray(blocks * 512)
    data[:2] = b"\x55\xaa"
    struct.pack_into("<H", data, 0x18, pcir_at)
    told = blocks + 1 if npde is not None else blocks
    flags = 0x80 if last and npde is None else 0
    struct.pack_into("<4sHHHHB3sHHBBH", data, pcir_at, signature, 0x10DE, 0x20B0, 0, 0x18, 0, b"\0\0\x03", told, 0, code_type, flags, 0)
    if npde is not None:
        struct.pack_into("<4sHHHBB", data, 0x40, b"NPDE", 0x101, npde_length, npde or blocks, 0x80 if last else 0, 0)
    data[0x60 : 0x60 + len(body)] = body
    return bytes(data)


def bit(falcon_pointer: int, *, token: int = 6, checksum: int = 0) -> bytes:
    """Body of a PC-AT image, to lie at 0x60 of it: BIT at once, data behind."""
    at = 0x60 + 0x80
    rows = [(0x42, 2, 6, at + 8), (0x70, 2, 4, at)]
    head = bytearray(b"\xff\xb8BIT\0" + struct.pack("<HBBBB", 0x100, 12, token, len(rows), 0))
    head[11] = (-sum(head) + checksum) & 0xFF
    body = bytes(head) + b"".join(struct.pack("<BBHH" if token == 6 else "<BBHI", *row) for row in rows)
    return body.ljust(0x80, b"\0") + struct.pack("<I", falcon_pointer) + bytes(4) + bytes((0x11, 0x22, 0x00, 0x92, 0x01, 0))


def dmem(
    size: int = 0x800, *, interface: int = 0x40, mapper: int = 0x100, buffer: int = 0x200, buffer_size: int = 0x40, mark: bytes = b"DMAP"
) -> bytes:
    data = bytearray(b"\xee" * size)
    struct.pack_into("<4B4I", data, interface, 1, 4, 8, 2, 1, 0x80, 4, mapper)
    data[mapper : mapper + 64] = bytes(64)
    struct.pack_into("<4sHHII", data, mapper, mark, 3, 64, buffer, buffer_size)
    return bytes(data)


def ucode_v3(signatures: int = 2, versions: int = 0b11, engine: int = 0x400, ucode: int = 9, data: bytes | None = None) -> bytes:
    data = dmem() if data is None else data
    code = bytes(i % 255 for i in range(0x400))
    length = 44 + 384 * signatures
    head = struct.pack(
        "<9IHBBHH",
        length << 16 | 3 << 8 | 1,
        len(code) + len(data),
        0x300,
        0x40,
        0,
        len(code),
        0,
        0,
        len(data),
        engine,
        ucode,
        signatures,
        versions,
        0,
    )
    return head + b"".join(bytes([0xA0 + i]) * 384 for i in range(signatures)) + code + data


def ucode_v2(data: bytes | None = None) -> bytes:
    data = dmem() if data is None else data
    code = bytes(i % 255 for i in range(0x400))
    words = [
        60 << 16 | 2 << 8 | 1,
        len(code) + len(data),
        len(code) + len(data),
        0x100,
        0x40,
        0,
        len(code),
        0x1000,
        0x1100,
        0x300,
        len(code),
        0,
        len(data),
        0,
        0,
    ]
    return struct.pack("<15I", *words) + code + data


def rom(
    ucode: bytes | None = None, *, application: int = 0x85, token: int = 6, checksum: int = 0, ifr: int = 0, split: bool = False,
    last: bool = True, npde: bool = True, code_type: int = 0xE0, table: bytes | None = None,
) -> bytes:  # fmt: skip
    """A whole ROM: PC-AT, EFI, two extended images; `split` lets the ucode cross from the first to the second."""
    ucode = ucode_v3() if ucode is None else ucode
    size = len(image(bit(0), 0))
    place = 0 if npde else None
    first_body = bytes(0x40)
    first = image(first_body, code_type, npde=place)
    start = size + (0x60 if split else len(first) + 0x60)
    rows = struct.pack("<BBIBBI", 0x05 if application == 5 else 0x04, 0, start + 0x40, application, 0, start + 0x40)
    body = (struct.pack("<6B", 1, 6, 6, 2, 2, 60) + rows if table is None else table).ljust(0x40, b"\0") + ucode
    if split:
        # the second image begins 1024 bytes on, its header lying over code of the ucode: the run of bytes keeps its offsets
        whole = bytearray(image(body, code_type, last=last, npde=place))
        head = image(bytes(len(whole) - 1024 - 0x60), code_type, last=last, npde=place)
        whole[1024 : 1024 + 0x60] = head[:0x60]
        struct.pack_into("<H", whole, 0x1C + 0x10, 2)
        whole[0x31] = 0
        if npde:
            struct.pack_into("<HB", whole, 0x48, 2, 0)
        parts = [bytes(whole[:1024]), bytes(whole[1024:])]
    else:
        parts = [first, image(body, code_type, last=last, npde=place)]
    images = image(bit(start, token=token, checksum=checksum), 0, npde=place) + image(bytes(0x40), 3, npde=place) + b"".join(parts)
    return behind_ifr(ifr, images) if ifr else images


def behind_ifr(version: int, images: bytes) -> bytes:
    if version in (1, 2):
        head = bytearray(0x400)
        struct.pack_into("<III", head, 0, 0x4947564E, version << 8 | 0x20 << 16, 0x400)
        struct.pack_into("<I", head, 0x24, 0x400)
        return bytes(head) + images
    head = bytearray(0x2400)
    struct.pack_into("<III", head, 0, 0x4947564E, version << 8 | 0x20 << 16, 0x100)
    struct.pack_into("<I", head, 0x100, 0x1000)
    struct.pack_into("<III", head, 0x2000, 0x44524652, 0, 0x2400)
    return bytes(head) + images
