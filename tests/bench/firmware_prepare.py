"""Time to put a 63 MB GSP image into device-visible memory: `python tests/bench/firmware_prepare.py [IMAGE]`. Prints one JSON object.

Ours: open the file, read its headers, let the kernel copy `.fwimage` from the page cache into a fresh shared mapping, write the radix3
tables. Against one memcpy of the same bytes into a mapping as fresh (bar: at most 1.3) and, for information, between warm buffers. Without
IMAGE a file of that size is made up. Exit status 1 if the bar is missed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from statistics import median

from nvcore_fw_gsp.images.gsp import GspImage
from nvcore_fw_gsp.images.radix3 import PAGE, Radix3Size, write_radix3
from nvcore_fw_gsp.images.source import FileSource

BAR = 1.3
SIZE = 63_541_248
ROUNDS = 9


class Buffer:
    """Fresh shared memory from a memfd, as a bus gives it; `contiguous` as asked for."""

    def __init__(self, size: int, contiguous: bool = True) -> None:
        self.size, self.contiguous = size, contiguous
        self.fd = os.memfd_create("bench")
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.view = memoryview(self.map)

    def bus_address(self, offset: int = 0) -> int:
        """Identity above 4 GiB."""
        return 0x1_0000_0000 + offset

    def close(self) -> None:
        """Give it back."""
        self.view.release()
        self.map.close()
        os.close(self.fd)


def make_image(folder: str) -> str:
    """An ELF file with a `.fwimage` of SIZE bytes of varied content."""
    names = b"\0.fwimage\0.fwversion\0.fwsignature_ga100\0.shstrtab\0"
    parts = [(1, os.urandom(1 << 20) * (SIZE // (1 << 20) + 1)), (10, b"570.144\0"), (21, bytes(4096)), (40, names)]
    rows, body = [bytes(64)], b""
    for at, data in parts:
        data = data[:SIZE]
        rows.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 0x40 + len(body), len(data), 0, 0, 1, 0))
        body += data
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 0xF3, 1, 0, 0, 0x40 + len(body), 0, 64, 0, 0, 64, 5, 4
    )
    path = os.path.join(folder, "gsp.bin")
    with open(path, "wb") as file:
        file.write(head + body + b"".join(rows))
    return path


def prepare(path: str, data: Buffer, tables: Buffer) -> None:
    """What the driver does before it can tell the firmware where its image lies."""
    image = GspImage(FileSource(path))
    image.read_into(data.view[: image.size])
    write_radix3(tables, data, image.size)
    image.close()


def milliseconds(body: Callable[[], None]) -> float:
    """One run."""
    start = time.perf_counter()
    body()
    return (time.perf_counter() - start) * 1000


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else make_image(folder)
        image = GspImage(FileSource(path))
        size = image.size
        raw = bytearray(size)
        image.read_into(memoryview(raw))  # warms the page cache
        source, warm = memoryview(raw), memoryview(bytearray(size))
        need = Radix3Size(size)
        times: dict[str, list[float]] = {"prepare": [], "prepare scattered": [], "memcpy fresh": [], "memcpy warm": []}
        for _ in range(ROUNDS):
            for key in times:
                data, tables = Buffer(need.data * PAGE, key == "prepare"), Buffer(need.tables)
                if key.startswith("prepare"):
                    times[key].append(milliseconds(lambda d=data, t=tables: prepare(path, d, t)))  # type: ignore[misc]
                elif key == "memcpy fresh":
                    times[key].append(milliseconds(lambda d=data: d.view.__setitem__(slice(0, size), source)))  # type: ignore[misc]
                else:
                    times[key].append(milliseconds(lambda: warm.__setitem__(slice(0, size), source)))
                data.close()
                tables.close()
        data, tables = Buffer(need.data * PAGE), Buffer(need.tables)
        tracemalloc.start()
        prepare(path, data, tables)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found = {key: round(median(values), 2) for key, values in times.items()}
        ratios = sorted(ours / theirs for ours, theirs in zip(times["prepare"], times["memcpy fresh"], strict=True))
        ratio = round(median(ratios), 3)
        print(
            json.dumps(
                {
                    "bench": "firmware_prepare",
                    "bytes": size,
                    "milliseconds": found,
                    "ratio to memcpy into a fresh mapping": ratio,
                    "ratio to memcpy between warm buffers": round(found["prepare"] / found["memcpy warm"], 3),
                    "bar": BAR,
                    "peak of Python memory, bytes": peak,
                    "ok": ratio <= BAR,
                },
                indent=1,
            )
        )
        return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
