"""The VBIOS: finding FWSEC in a GPU's ROM and preparing it for its run after an unload.

Owns parsing only: it reads bytes through a `Rom` and never a register. Raises only errors of `vbios.errors`, whatever the bytes are. Turing
to Ada; later chips need no VBIOS. Modules are imported on use.
"""

from __future__ import annotations
