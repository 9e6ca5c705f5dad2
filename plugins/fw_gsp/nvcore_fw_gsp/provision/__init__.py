"""Getting firmware onto the machine: `nvcore firmware fetch`, from Debian's package, without root and without installing anything.

Owns the folder that it fills and a private apt state inside it; never touches the system's package state. Command line only, main thread.
"""

from __future__ import annotations
