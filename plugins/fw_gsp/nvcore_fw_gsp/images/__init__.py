"""Firmware files: which there are, what is in them, and how they get into memory.

Owns the containers' parsers and the chip table; touches no device. `find` and `choose` say what there is, `ImageSet.open_gsp` and the
ucode classes read it, `write_radix3` describes it to the firmware. Readers raise only errors of `images.errors`, whatever the bytes are.
Modules are imported on use.
"""

from __future__ import annotations
