"""Layouts: where a member lies in a structure, and how its value becomes bytes and comes back.

Owns no data: a `Struct` is made from one line of a data file. Values are checked against their width when written; a buffer is checked
against the structure's size before it is read. Any thread; hot paths use `Struct.packer` or `Slot.codec`, which are plain
`struct.Struct`s. Layouts are those of x86-64, little-endian.
"""

from __future__ import annotations

import re
import struct as _struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from nvcore_fw_gsp.abi.errors import AbiFieldError, AbiValueError

if TYPE_CHECKING:
    Buffer: TypeAlias = bytes | bytearray | memoryview
    WritableBuffer: TypeAlias = bytearray | memoryview
    Resolve: TypeAlias = Callable[[str], "Struct"]

__all__ = ["Field", "Slot", "Struct", "View"]

_PRIMITIVES: Final = {
    "1": ("NvU8", "B", 1),
    "2": ("NvU16", "H", 2),
    "4": ("NvU32", "I", 4),
    "8": ("NvU64", "Q", 8),
    "b": ("NvBool", "B", 1),
    "h": ("NvHandle", "I", 4),
    "c": ("char", "B", 1),
    "s4": ("NvS32", "i", 4),
    "s8": ("NvS64", "q", 8),
}
_UNSIGNED: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_WORD: Final = re.compile(r"(?P<name>\w+):(?P<type>[^\[@~]+)(?P<dims>(?:\[\d+\])*)(?:@(?P<offset>\d+))?(?:~(?P<bit>\d+)\+(?P<bits>\d+))?")
_STEP: Final = re.compile(r"\.?(\w+)|\[(\d+)\]")


class Field:
    """One member as declared: `offset` and `size` in bytes from the start of its structure, `type` the C type's name with its dimensions.

    `dims` are the dimensions, `width` the size of one element.
    """

    __slots__ = ("bit", "bits", "codec", "dims", "name", "offset", "size", "struct", "type", "width")

    def __init__(self, name: str, type_name: str, dims: tuple[int, ...], offset: int, width: int) -> None:
        self.name = name
        self.type = type_name + "".join(f"[{dim}]" for dim in dims)
        self.dims = dims
        self.offset = offset
        self.width = width
        self.size = width * _product(dims)
        self.struct: Struct | None = None
        self.codec = ""
        self.bit, self.bits = 0, 0

    def __repr__(self) -> str:
        return f"Field({self.name!r}, offset={self.offset}, size={self.size}, type={self.type!r})"


class Slot:
    """Where one path of members leads: `offset`, `size`, `count` elements, and `codec`, a `struct.Struct` (None for a structure).

    kind: "int", "bool", "ints", "bytes", "struct" or "structs".
    """

    __slots__ = ("bit", "codec", "count", "kind", "mask", "offset", "rank", "size", "struct")

    def __init__(self, field: Field, offset: int, dims: tuple[int, ...]) -> None:
        self.offset = offset
        self.rank = len(dims)  # dimensions left: 0 for one element
        self.count = count = _product(dims)
        self.size = count * field.width
        self.struct = field.struct
        self.codec: _struct.Struct | None = None
        self.bit, self.mask = field.bit, (1 << field.bits) - 1
        if field.struct is not None:
            self.kind = "structs" if dims else "struct"
        elif not dims:
            self.codec = _struct.Struct("<" + field.codec)
            self.kind = "bool" if field.type.startswith("NvBool") else "int"
        elif field.codec == "B":
            self.kind = "bytes"
            self.codec = _struct.Struct(f"<{count}s")
        else:
            self.kind = "ints"
            self.codec = _struct.Struct(f"<{count}{field.codec}")


class Struct:
    """The layout of one structure: `name`, `size` in bytes, `fields` by name in the order of declaration (a union's share offsets)."""

    __slots__ = ("_slots", "fields", "name", "size")

    def __init__(self, name: str, size: int, fields: dict[str, Field]) -> None:
        self.name = name
        self.size = size
        self.fields = fields
        self._slots: dict[str, Slot] = {}

    def __repr__(self) -> str:
        return f"Struct({self.name!r}, size={self.size})"

    @classmethod
    def parse(cls, name: str, line: str, resolve: Resolve) -> Struct:
        """Make a layout from the rest of its line in the data file; `resolve` finds the structures inside it."""
        size, *words = line.split(" ")
        fields: dict[str, Field] = {}
        end = 0
        for word in words:
            match = _WORD.fullmatch(word)
            if match is None:
                raise AbiValueError(f"ABI data of {name} is damaged", seen=word)
            field = _field(match, end, resolve)
            fields[field.name] = field
            end = field.offset + field.size
        return cls(name, int(size), fields)

    def field(self, path: str) -> Field:
        """The declaration behind a path such as "a.b[0].c", its offset counted from this structure. Raises AbiFieldError."""
        field, slot = self._walk(path)
        dims = field.dims[len(field.dims) - slot.rank :]
        found = Field(field.name, field.type.partition("[")[0], dims, slot.offset, field.width)
        found.struct, found.codec, found.bit, found.bits = field.struct, field.codec, field.bit, field.bits
        return found

    def slot(self, path: str) -> Slot:
        """Offset, size and codec behind a path, kept after the first use: bind it once in a hot path. Raises AbiFieldError."""
        found = self._slots.get(path)
        if found is None:
            found = self._slots[path] = self._walk(path)[1]
        return found

    def offset(self, path: str) -> int:
        """Offset in bytes of a path such as "a.b[0].c". Raises AbiFieldError."""
        return self.slot(path).offset

    def has(self, name: str) -> bool:
        """Whether this version's structure has a member of that name."""
        return name.partition(".")[0].partition("[")[0] in self.fields

    def packer(self, *names: str) -> _struct.Struct:
        """One `struct.Struct` of the whole size for the members `names`, in the order of their offsets; the rest is padding (zeroed).

        Arrays of bytes are one value, other arrays one value an element. Raises AbiFieldError, AbiValueError for overlap or wrong order.
        """
        text, at = "<", 0
        for name in names:
            slot = self.slot(name)
            if slot.codec is None or slot.bit or slot.mask:
                raise AbiValueError(f"{self.name}.{name} is no plain member", expected="a number or an array of numbers")
            if slot.offset < at:
                raise AbiValueError(f"{self.name}.{name} is named out of order or overlaps", expected=f"offset >= {at}", seen=slot.offset)
            text += f"{slot.offset - at}x{slot.codec.format[1:]}"
            at = slot.offset + slot.size
        return _struct.Struct(f"{text}{self.size - at}x")

    def pack(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> bytearray:
        """A zeroed structure with the given members set. Keys are names or paths. Raises AbiFieldError, AbiValueError."""
        buffer = bytearray(self.size)
        for source in (values or {}, more):
            for path, value in source.items():
                self.put(buffer, path, value)
        return buffer

    def put(self, buffer: WritableBuffer, path: str, value: Any, offset: int = 0) -> None:
        """Write one member into the structure at `offset` of a buffer.

        Numbers must fit their width. bytes may be shorter than their array (the rest is zeroed), never longer; other arrays take as many
        numbers as they have elements, or fewer. A structure takes a mapping or its exact bytes; an array of structures a sequence of these.
        """
        slot = self._slots.get(path) or self.slot(path)
        self._check(buffer, offset, slot.offset + slot.size)
        _write(f"{self.name}.{path}", buffer, slot, offset + slot.offset, value)

    def get(self, buffer: Buffer, path: str, offset: int = 0) -> Any:
        """Read one member of the structure at `offset`: int, bool, bytes, tuple or View. Raises AbiFieldError, AbiValueError."""
        slot = self._slots.get(path) or self.slot(path)
        self._check(buffer, offset, slot.offset + slot.size)
        return _read(buffer, slot, offset + slot.offset)

    def unpack(self, buffer: Buffer, offset: int = 0) -> View:
        """A copy of the structure at `offset`, read member by member on use; the peer may write on meanwhile. Raises AbiValueError."""
        self._check(buffer, offset, self.size)
        return View(self, bytes(memoryview(buffer)[offset : offset + self.size]), 0)

    def _check(self, buffer: Buffer, offset: int, needed: int) -> None:
        if offset < 0 or offset + needed > len(buffer):
            raise AbiValueError(f"buffer too short for {self.name}", expected=f"{needed} bytes at {offset}", seen=f"{len(buffer)} bytes")

    def _walk(self, path: str) -> tuple[Field, Slot]:
        layout: Struct | None = self
        field: Field | None = None
        dims: tuple[int, ...] = ()
        offset = at = 0
        while at < len(path):
            step = _STEP.match(path, at)
            if step is None:
                self._unknown(path)
            at = step.end()
            if step[1] is not None:
                if layout is None or step[1] not in layout.fields or dims or (step[0][0] == ".") != (field is not None):
                    self._unknown(path)
                field = layout.fields[step[1]]
                layout, dims, offset = field.struct, field.dims, offset + field.offset
            else:
                index = int(step[2])
                if field is None or not dims or (dims[0] and index >= dims[0]):  # a flexible array, [0], is as long as its buffer
                    self._unknown(path)
                dims = dims[1:]
                offset += index * _product(dims) * field.width
        if field is None:
            self._unknown(path)
        return field, Slot(field, offset, dims)

    def _unknown(self, path: str) -> NoReturn:
        raise AbiFieldError(f"{self.name} has no member {path}", expected=", ".join(list(self.fields)[:12]))


class View(Mapping[str, Any]):
    """A structure in bytes, as a read-only mapping: `view["a.b[0].c"]`. Iterates over its own members' names. `layout` is its Struct."""

    __slots__ = ("_at", "_data", "layout")

    def __init__(self, layout: Struct, data: bytes, at: int) -> None:
        self.layout = layout
        self._data = data
        self._at = at

    def __getitem__(self, path: str) -> Any:
        slot = self.layout.slot(path)
        return _read(self._data, slot, self._at + slot.offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.fields)

    def __len__(self) -> int:
        return len(self.layout.fields)

    def __repr__(self) -> str:
        return f"View({self.layout.name})"

    def __bytes__(self) -> bytes:
        return self._data[self._at : self._at + self.layout.size]

    def as_dict(self) -> dict[str, Any]:
        """The whole structure as plain values, structures inside as dictionaries."""
        return {name: _plain(self[name]) for name in self}


def _plain(value: Any) -> Any:
    if isinstance(value, View):
        return value.as_dict()
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value


def _product(dims: Iterable[int]) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count


def _field(match: re.Match[str], end: int, resolve: Resolve) -> Field:
    """One member from one word of a line; `end` is where the member before it ends."""
    kind = match["type"]
    dims = tuple(int(dim) for dim in match["dims"][1:-1].split("][")) if match["dims"] else ()
    offset = end if match["offset"] is None else int(match["offset"])
    struct: Struct | None = None
    if kind in _PRIMITIVES:
        type_name, codec, width = _PRIMITIVES[kind]
    elif kind.endswith("*"):
        type_name, codec, width = kind, "Q", 8
    elif "=" in kind:
        type_name, _, text = kind.partition("=")
        width = int(text)
        codec = _UNSIGNED[width]
    else:
        struct = resolve(kind)
        type_name, codec, width = struct.name, "", struct.size
    field = Field(match["name"], type_name, dims, offset, width)
    field.struct, field.codec = struct, codec
    if match["bits"] is not None:
        field.bit, field.bits = int(match["bit"]), int(match["bits"])
    return field


def _read(buffer: Buffer, slot: Slot, at: int) -> Any:
    codec = slot.codec
    if codec is not None:
        values = codec.unpack_from(buffer, at)
        if slot.kind == "ints":
            return values
        value = values[0]
        if slot.mask:
            return value >> slot.bit & slot.mask
        return value != 0 if slot.kind == "bool" else value
    layout = slot.struct
    assert layout is not None
    data = bytes(memoryview(buffer)[at : at + slot.size])
    if slot.kind == "struct":
        return View(layout, data, 0)
    return tuple(View(layout, data, index * layout.size) for index in range(slot.count))


def _write(name: str, buffer: WritableBuffer, slot: Slot, at: int, value: Any) -> None:
    try:
        if slot.kind in ("int", "bool"):
            assert slot.codec is not None
            if slot.mask:
                old = slot.codec.unpack_from(buffer, at)[0]
                if not 0 <= value <= slot.mask:
                    raise AbiValueError(f"value does not fit {name}", expected=f"0..{slot.mask}", seen=value)
                value = old & ~(slot.mask << slot.bit) | value << slot.bit
            slot.codec.pack_into(buffer, at, value)
        elif slot.kind == "bytes":
            data = value if isinstance(value, bytes | bytearray | memoryview) else bytes(value)
            if len(data) > slot.size:
                raise AbiValueError(f"too many bytes for {name}", expected=f"at most {slot.size}", seen=len(data))
            buffer[at : at + slot.size] = bytes(data) + bytes(slot.size - len(data))
        elif slot.kind == "ints":
            assert slot.codec is not None
            items = tuple(value)
            if len(items) > slot.count:
                raise AbiValueError(f"too many values for {name}", expected=f"at most {slot.count}", seen=len(items))
            slot.codec.pack_into(buffer, at, *items, *(0,) * (slot.count - len(items)))
        elif slot.kind == "struct":
            _write_struct(name, buffer, slot.struct, at, value)
        else:
            if len(value) > slot.count:
                raise AbiValueError(f"too many structures for {name}", expected=f"at most {slot.count}", seen=len(value))
            assert slot.struct is not None
            for index, item in enumerate(value):
                _write_struct(f"{name}[{index}]", buffer, slot.struct, at + index * slot.struct.size, item)
    except (_struct.error, TypeError, ValueError, OverflowError) as error:
        raise AbiValueError(f"value does not fit {name}", expected=f"{slot.size} bytes ({slot.kind})", seen=repr(value)[:80]) from error


def _write_struct(name: str, buffer: WritableBuffer, layout: Struct | None, at: int, value: Any) -> None:
    assert layout is not None
    if isinstance(value, Mapping) and not isinstance(value, View):
        for path, item in value.items():
            layout.put(buffer, path, item, at)
        return
    data = bytes(value)
    if len(data) != layout.size:
        raise AbiValueError(f"wrong number of bytes for {name}", expected=layout.size, seen=len(data))
    buffer[at : at + layout.size] = data
