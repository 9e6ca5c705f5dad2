"""The shared block: page list, command queue, status queue, in one piece of host memory that the firmware maps.

Owns the DMA buffer and the command queue's header. Fills the page list and the header once, before the firmware starts; afterwards only
`CommandSender` and `StatusReceiver` touch the block. Runs on the opener's thread.
Source: open-gpu-kernel-modules 570.144, message_queue_cpu.c, msgq.c.
"""

from __future__ import annotations

from nvcore.api.device import DmaBuffer
from nvcore_fw_gsp.queue.errors import QueueCorrupt
from nvcore_fw_gsp.queue.layout import FLAG_SWAP_RX, PAGE, QUEUE_HEADER, QUEUE_SIZE, RX_HEADER, SLOT

__all__ = ["SharedBlock", "block_size", "kept"]


def _table_pages(queues: int) -> int:
    """Pages that the page list needs: it lists the queues' pages and its own."""
    pages = 1
    while pages * (PAGE // 8) < queues + pages:
        pages += 1
    return pages


def block_size(command_size: int = QUEUE_SIZE, status_size: int = QUEUE_SIZE) -> int:
    """Bytes to allocate for queues of these sizes (multiples of 4 KiB)."""
    queues = (command_size + status_size) // PAGE
    return (queues + _table_pages(queues)) * PAGE


def kept(word: memoryview) -> memoryview:
    """A word of memory of our own with the value of `word`, in whose place it can stand."""
    return memoryview(bytearray(word.tobytes())).cast("I")


class SharedBlock:
    """Page list and two queues in `buffer`, which must have `block_size()` zeroed bytes.

    Offsets are in bytes from the start of the block: `command`, `status` of the queues. `entries` is the number of page-list entries.
    """

    __slots__ = ("buffer", "command", "command_size", "entries", "status", "status_size", "view")

    def __init__(self, buffer: DmaBuffer, command_size: int = QUEUE_SIZE, status_size: int = QUEUE_SIZE) -> None:
        queues = (command_size + status_size) // PAGE
        table = _table_pages(queues)
        self.buffer = buffer
        self.view = buffer.view
        self.command_size, self.status_size = command_size, status_size
        self.command = table * PAGE
        self.status = self.command + command_size
        self.entries = queues + table
        listing = self.view[: self.entries * 8].cast("Q")
        for page in range(self.entries):  # the block need not be contiguous for the device
            listing[page] = buffer.bus_address(page * PAGE)
        count = (command_size - PAGE) // SLOT
        QUEUE_HEADER.pack_into(self.view, self.command, 0, command_size, SLOT, count, 0, FLAG_SWAP_RX, RX_HEADER, PAGE)

    @property
    def address(self) -> int:
        """Bus address of the block, which is also its first page-list entry."""
        return self.buffer.bus_address(0)

    def status_header(self) -> tuple[int, int, int] | None:
        """(slots, offset of the first slot, offset of the read pointer) in bytes from the status queue's start; None while not written.

        Raises QueueCorrupt for a header that the reference library would refuse as well.
        """
        version, size, slot, count, _write, _flags, rx, entry = QUEUE_HEADER.unpack_from(self.view, self.status)
        if not entry or not size:
            return None
        sound = (
            version == 0
            and size == self.status_size
            and slot == SLOT
            and rx >= RX_HEADER
            and rx + 4 <= entry <= size
            and rx % 4 == 0
            and entry % 8 == 0
            and count == (size - entry) // slot
            and count >= 2
        )
        if not sound:
            raise QueueCorrupt(
                "the firmware's status queue header cannot be used",
                expected=f"version 0, size {self.status_size:#x}, slots of {SLOT:#x}, count (size - entries) / slot",
                seen=f"version {version}, size {size:#x}, slots of {slot:#x}, count {count}, rx header {rx:#x}, entries {entry:#x}",
                where="status queue header",
                remedy="the image does not speak this queue layout: nvcore firmware verify",
            )
        return count, entry, rx
