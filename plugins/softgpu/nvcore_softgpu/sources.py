"""Sources: how a software GPU is named in a configuration, "softgpu:ga100?vram=40G&firmware=DIR&fault=NAME:ARG&name=NAME".

Owns the grammar. Pure functions; any thread. Strict: what is not understood is an error that names the key. vram, bar1: sizes (bar1 a
power of two, by default VRAM rounded up). firmware: a folder to compare images and boot programs with. fault: may be given again. name:
tells two GPUs of one kind apart. scattered=1: large DMA buffers have scattered bus addresses. address: the PCI address shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from nvcore.api.errors import NotFoundError, UsageError
from nvcore_softgpu.chips import CHIPS, Chip, chip_named
from nvcore_softgpu.registers.chip import encode_fb_size

__all__ = ["SCHEME", "Source", "SourceError", "parse_size", "parse_source"]

SCHEME: Final = "softgpu"
"""How a source begins, in front of the colon."""

MIB: Final = 1 << 20
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_KEYS: Final = ("vram", "bar1", "firmware", "fault", "name", "scattered", "address")
SMALLEST: Final = 512 * MIB  # the firmware's own region, a heap and something to give away
LARGEST: Final = 1 << 38


class SourceError(UsageError):
    """A source that cannot be understood."""

    code = "NVC-7002"
    usual_remedy = "write it as in softgpu:ga100?vram=40G&name=one"


class Source(NamedTuple):
    """A source, understood. Sizes in bytes; firmware: a folder or None; address: PCI address or None."""

    chip: Chip
    vram: int
    bar1: int
    firmware: Path | None
    faults: tuple[str, ...]
    name: str
    scattered: bool
    address: str | None


def parse_size(text: str, key: str) -> int:
    """Bytes from "40G", "256M" or a number. Raises SourceError."""
    digits, unit = (text[:-1], _UNITS.get(text[-1:].upper())) if text and not text[-1].isdigit() else (text, 1)
    if not digits.isdigit() or not digits.isascii() or unit is None:
        raise SourceError(f"{key}={text} is not a size", expected="a number with K, M or G", remedy=f"write a size such as {key}=40G")
    return int(digits) * unit


def parse_source(source: str) -> Source:
    """Understand a source. Raises SourceError, and NotFoundError for a chip that is not in the table."""
    scheme, colon, rest = source.partition(":")
    if scheme != SCHEME or not colon:
        raise SourceError("not a source of a software GPU", expected=f"{SCHEME}:CHIP?key=value&…", seen=source)
    name, _, query = rest.partition("?")
    chip = chip_named(name)
    if chip is None:
        chips = ", ".join(chip.name.lower() for chip in CHIPS)
        raise NotFoundError(f"no chip {name!r} in the model", expected=chips, where=source, remedy=f"name one of {chips}: softgpu:ga100")
    values, faults = _split(query, source)
    vram = parse_size(values["vram"], "vram") if "vram" in values else chip.default_vram
    if not SMALLEST <= vram <= LARGEST:
        raise SourceError(f"vram is not between {SMALLEST >> 20}M and {LARGEST >> 30}G", seen=values.get("vram"), where=source)
    encode_fb_size(chip.fb_size, vram)
    bar1 = parse_size(values["bar1"], "bar1") if "bar1" in values else max(256 * MIB, 1 << (vram - 1).bit_length())
    if bar1 & bar1 - 1 or bar1 < MIB or bar1 > 1 << 40:
        raise SourceError("bar1 is not a bar size", expected="a power of two from 1M", seen=values.get("bar1"), where=source)
    firmware = Path(values["firmware"]) if "firmware" in values else None
    if firmware is not None and not firmware.is_dir():
        raise SourceError("firmware is not a folder", seen=str(firmware), where=source, remedy="name a folder with <chip>/gsp/… below")
    scattered = values.get("scattered", "0")
    if scattered not in ("0", "1"):
        raise SourceError("scattered is not 0 or 1", seen=scattered, where=source)
    return Source(chip, vram, bar1, firmware, tuple(faults), values.get("name", ""), scattered == "1", values.get("address"))


def _split(query: str, source: str) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    faults: list[str] = []
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        if "%" in value:
            from urllib.parse import unquote

            value = unquote(value)
        if key not in _KEYS or not equals or not value:
            what = f"no value for {key}" if key in _KEYS else f"a software GPU has no {key!r}"
            raise SourceError(what, expected=", ".join(f"{known}=…" for known in _KEYS), where=source, remedy=f"keys: {', '.join(_KEYS)}")
        if key == "fault":
            faults.append(value)
        elif key in values:
            raise SourceError(f"{key} is given twice", seen=item, where=source)
        else:
            values[key] = value
    return values, faults
