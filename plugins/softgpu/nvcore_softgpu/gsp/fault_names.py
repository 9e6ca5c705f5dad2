"""Faults that act inside the firmware, beyond those of the device's own table: (name, place, argument, acts once, meaning).

Declarations only; `nvcore_softgpu.faults` merges them into the table that users see. Numbers are decimal or 0x hexadecimal.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GSP_FAULTS"]

GSP_FAULTS: Final[tuple[tuple[str, str, str, bool, str], ...]] = (
    ("alloc-status", "GSP", "[class][,status], default any and 0x1a", True, "an object allocation is answered with an error status"),
    ("rpc-spoil", "GSP", "lost|silent|zero|all-ones[,NTH]", True,
     "the NTH RPC from now on is not seen, done and not answered, or answered with zeros or ones where its data should be"),
    ("empty-interrupt-table", "GSP", "", True, "the interrupt table has no entry"),
    ("engine-without-interrupt", "GSP", "", True, "the last engine is missing in the interrupt table"),
    ("sequencer-write", "GSP", "ADDRESS=VALUE", True, "the CPU sequence of the boot asks for one register write (chips with a booter)"),
    ("sequencer-late", "GSP", "ADDRESS=VALUE", True, "a CPU sequence arrives after the boot, before the next reply"),
    ("gsp-halt@set-pdb", "GSP", "", True, "the firmware dies while a page directory is set"),
    ("gsp-halt@bootload", "GSP", "", True, "the firmware dies while a vGPU task is started"),
    ("vgpu-no-marker", "vGPU task", "", True, "a task starts and never writes its marker"),
    ("vgpu-rpc-error", "vGPU task", "result, default 0x65", True, "a host RPC message is answered with an error"),
    ("vgpu-rpc-silent", "vGPU task", "", True, "a host RPC message is never answered"),
    ("vgpu-crash", "vGPU task", "", True, "a task dies at its next host RPC message"),
)
"""In the order in which users see them."""
