"""How a register is declared: a class with an offset and documented fields; reading gives an immutable value, writing checks widths.

    class BOOT_42(Register, offset=0x0A00):
        "Extended chip identification."
        architecture = Field(29, 24, "GPU architecture")

    BOOT_42.read(bar).architecture
    CPUCTL.zero().replace(startcpu=1).write(bar, FALCON_GSP)
    QUEUE_HEAD.read(bar, index=1)                 # an array: offset + index * stride

`base` moves a register that is declared relative to a unit (falcons). A bar is anything with read32 and write32
(`nvcore.api.device.Bar`).
Plain classes and descriptors: an attrs class a register would cost thirty times more at import. Runs in any thread; holds no state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, Self, overload

from nvcore.api.errors import ContractError, DeviceGone

__all__ = ["Field", "Register", "RegisterIo", "is_bus_error", "registers"]

_ALL_ONES = 0xFFFFFFFF


class RegisterIo(Protocol):
    """32-bit accesses at byte offsets."""

    def read32(self, offset: int) -> int:
        """Load."""
        ...

    def write32(self, offset: int, value: int) -> None:
        """Store."""
        ...


class Field:
    """Bits [high:low] of a register, with a word on what they mean. Reading gives the integer."""

    __slots__ = ("doc", "high", "low", "mask", "maximum", "name")

    def __init__(self, high: int, low: int, doc: str) -> None:
        if not 0 <= low <= high <= 31:
            raise ContractError("field bits out of order", expected="0 <= low <= high <= 31", seen=f"{high}:{low}")
        self.high, self.low, self.doc = high, low, doc
        self.maximum = (1 << (high - low + 1)) - 1
        self.mask = self.maximum << low
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, value: None, owner: type) -> Field: ...
    @overload
    def __get__(self, value: Register, owner: type) -> int: ...
    def __get__(self, value: Register | None, owner: type) -> Field | int:
        """The field's integer of a value; the declaration itself on the class."""
        return self if value is None else (value.raw & self.mask) >> self.low


class Register:
    """Base of all register declarations; an instance is one immutable 32-bit value."""

    __slots__ = ("raw",)

    OFFSET: ClassVar[int] = 0
    STRIDE: ClassVar[int] = 0
    COUNT: ClassVar[int] = 1
    FIELDS: ClassVar[dict[str, Field]] = {}
    raw: int

    def __init_subclass__(cls, *, offset: int | None = None, stride: int = 0, count: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if offset is None:  # an intermediate class
            return
        if offset % 4 or (count > 1 and stride < 4):
            raise ContractError(
                f"register {cls.__name__} misdeclared", expected="aligned offset; stride for arrays", seen=f"{offset:#x}, {stride}"
            )
        fields = {name: value for klass in reversed(cls.__mro__) for name, value in vars(klass).items() if isinstance(value, Field)}
        used = 0
        for name, field in fields.items():
            if hasattr(Register, name):
                raise ContractError(f"field {name} of {cls.__name__} would hide Register.{name}", remedy="give the field another name")
            if used & field.mask:
                raise ContractError(f"field {name} of {cls.__name__} overlaps another", seen=f"{field.high}:{field.low}")
            used |= field.mask
        cls.OFFSET, cls.STRIDE, cls.COUNT, cls.FIELDS = offset, stride, count, fields

    def __init__(self, raw: int) -> None:
        object.__setattr__(self, "raw", raw & _ALL_ONES)

    def __setattr__(self, name: str, value: object) -> None:
        raise ContractError(f"a value of {type(self).__name__} cannot be changed", remedy="use replace()")

    @classmethod
    def address(cls, base: int = 0, index: int = 0) -> int:
        """Byte offset of the register (of element `index` of an array) for a unit at `base`."""
        if not 0 <= index < cls.COUNT:
            raise ContractError(f"{cls.__name__} has no element {index}", expected=f"0 to {cls.COUNT - 1}")
        return base + cls.OFFSET + index * cls.STRIDE

    @classmethod
    def read(cls, io: RegisterIo, base: int = 0, index: int = 0) -> Self:
        """The value as it is; all-ones is a value here (see `read_alive`)."""
        return cls(io.read32(cls.address(base, index)))

    @classmethod
    def read_alive(cls, io: RegisterIo, base: int = 0, index: int = 0) -> Self:
        """As `read`, but an error pattern of the bus (all ones, 0xbadXYYYY) raises DeviceGone instead of becoming data."""
        raw = io.read32(cls.address(base, index))
        if is_bus_error(raw):
            raise DeviceGone(
                f"register {cls.__name__} cannot be read",
                seen=f"{raw:#010x}",
                where=f"{cls.address(base, index):#x}",
                remedy="reset the device",
            )
        return cls(raw)

    @classmethod
    def zero(cls) -> Self:
        """A value with all bits clear."""
        return cls(0)

    @classmethod
    def of(cls, **fields: int) -> Self:
        """A value with these fields set and the rest clear."""
        return cls(0).replace(**fields)

    def replace(self, **fields: int) -> Self:
        """The same value with fields changed; a value too wide for its field raises ContractError."""
        raw = self.raw
        for name, value in fields.items():
            field = self.FIELDS.get(name)
            if field is None:
                raise ContractError(f"{type(self).__name__} has no field {name}", expected=", ".join(self.FIELDS))
            if not 0 <= value <= field.maximum:
                raise ContractError(f"{type(self).__name__}.{name} does not take {value:#x}", expected=f"0 to {field.maximum:#x}")
            raw = (raw & ~field.mask) | (value << field.low)
        return type(self)(raw)

    def write(self, io: RegisterIo, base: int = 0, index: int = 0) -> None:
        """Store the value."""
        io.write32(self.address(base, index), self.raw)

    def decode(self) -> dict[str, int]:
        """All fields, by name."""
        return {name: (self.raw & field.mask) >> field.low for name, field in self.FIELDS.items()}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Register) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value:#x}" for name, value in self.decode().items())
        return f"{type(self).__name__}({self.raw:#010x}{': ' + inner if inner else ''})"


def is_bus_error(raw: int) -> bool:
    """Whether a 32-bit word is one that a dead bus or a blocked register gives (reference page gsp-boot.md 1.1): all ones, or
    0xbadXYYYY."""
    return raw == _ALL_ONES or raw >> 20 == 0xBAD


def registers(root: type[Register] = Register) -> Iterator[type[Register]]:
    """Every register declared so far, for dumps and reference pages."""
    for klass in root.__subclasses__():
        if klass.OFFSET or klass.FIELDS:
            yield klass
        yield from registers(klass)
