"""Time to put a 63 MB GSP image into device-visible memory: `python tests/bench/firmware_prepare.py [IMAGE]`. Prints one JSON object.

Ours are the boot's own stages (`open_common_files`, `load_image`) with the boot's own memory: open the files, read their headers, let the
kernel copy `.fwimage` from the page cache into a fresh shared mapping, write the radix3 tables. Against one memcpy of the same bytes into a
mapping as fresh (bar: at most 1.3) and, for information, between warm buffers. No second copy: what Python allocates meanwhile, and what
the process holds at its peak beyond those mappings, stay below 1 MiB and 4 MiB. Without IMAGE a synthetic set of GH100's size is made.
Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from nvcore_fw_gsp.boot import common
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.images.find import ImageSet, choose

BAR = 1.3
PYTHON_BAR = 1 << 20
RESIDENT_BAR = 4 << 20
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


class Memory:
    """The part of a device that a boot's memory asks for."""

    def __init__(self, contiguous: bool) -> None:
        self.contiguous, self.bytes = contiguous, 0

    def allocate_dma(self, size: int, *, label: str) -> Buffer:
        """A fresh buffer."""
        self.bytes += size
        return Buffer(size, self.contiguous)


class Desk:
    """Of a boot what the stages that load files work on."""

    def __init__(self, images: ImageSet, contiguous: bool = True) -> None:
        self.images, self.sources, self.device = images, [], Memory(contiguous)  # type: ignore[var-annotated]
        self.memory = HostMemory(self.device, 52)  # type: ignore[arg-type]
        self.gsp_image: Any = None
        self.bootloader: Any = None

    def prepare(self) -> None:
        """What the driver does before it can tell the firmware where its image lies."""
        common.open_common_files(self)  # type: ignore[arg-type]
        common.load_image(self)  # type: ignore[arg-type]

    def close(self) -> None:
        """Files and memory."""
        self.gsp_image.close()
        for source in self.sources:
            source.close()
        self.memory.close()


def make_images(folder: Path) -> ImageSet:
    """A synthetic set as big as GH100's own."""
    from nvcore_softgpu.images.synthetic import write_images

    write_images(folder, chip="gh100", full_size=True)
    return choose("GH100", [str(folder / "nvidia")])


def milliseconds(body: Callable[[], None]) -> float:
    """One run."""
    start = time.perf_counter()
    body()
    return (time.perf_counter() - start) * 1000


def resident(what: str) -> int:
    """Bytes of "VmRSS", or of "VmHWM", its peak since `forget_peak`."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what + ":")) << 10


def forget_peak() -> None:
    """The peak is what there is now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peaks(images: ImageSet) -> tuple[int, int]:
    """(peak of Python's own allocations while an image is prepared, resident bytes at the peak beyond the DMA memory)."""
    desk = Desk(images)
    tracemalloc.start()
    desk.prepare()
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    desk.close()
    desk = Desk(images)
    forget_peak()
    before = resident("VmRSS")
    desk.prepare()
    beyond = resident("VmHWM") - before - desk.device.bytes
    desk.close()
    return python, beyond


def measure(images: ImageSet) -> tuple[int, dict[str, list[float]]]:
    """(bytes of the image, milliseconds of every round). The copies they are compared with lie in memory before and after."""
    desk = Desk(images)
    common.open_common_files(desk)  # type: ignore[arg-type]
    size = desk.gsp_image.size
    raw = bytearray(size)
    desk.gsp_image.read_into(memoryview(raw))  # warms the page cache
    desk.close()
    source, warm = memoryview(raw), memoryview(bytearray(size))
    times: dict[str, list[float]] = {"prepare": [], "prepare scattered": [], "memcpy fresh": [], "memcpy warm": []}
    for _ in range(ROUNDS):
        for key in times:
            if key.startswith("prepare"):
                desk = Desk(images, key == "prepare")
                times[key].append(milliseconds(desk.prepare))
                desk.close()
            elif key == "memcpy fresh":
                fresh = Buffer(-(-size // 4096) * 4096)
                times[key].append(milliseconds(lambda to=fresh: to.view.__setitem__(slice(0, size), source)))  # type: ignore[misc]
                fresh.close()
            else:
                times[key].append(milliseconds(lambda: warm.__setitem__(slice(0, size), source)))
    return size, times


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder))
        if len(sys.argv) > 1:
            images.files["gsp"] = sys.argv[1]
        python, beyond = peaks(images)
        size, times = measure(images)
    found = {key: round(median(values), 2) for key, values in times.items()}
    ratio = round(median(ours / theirs for ours, theirs in zip(times["prepare"], times["memcpy fresh"], strict=True)), 3)
    good = ratio <= BAR and python <= PYTHON_BAR and beyond <= RESIDENT_BAR
    print(json.dumps({
        "bench": "firmware_prepare", "bytes": size, "milliseconds": found,
        "ratio to memcpy into a fresh mapping": ratio, "bar": BAR,
        "ratio to memcpy between warm buffers": round(found["prepare"] / found["memcpy warm"], 3),
        "peak of Python memory, bytes": python, "bar of Python memory": PYTHON_BAR,
        "peak of resident memory beyond the mappings, bytes": beyond, "bar of resident memory": RESIDENT_BAR, "ok": good,
    }, indent=1))  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
