"""A register is declared once and checked: its bits do not overlap, a value fits its field, an element is one of the array."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nvcore.hw
from nvcore.api.errors import ContractError, DeviceGone
from nvcore.hw.register import Field, Register, is_bus_error, registers

WORD = st.integers(0, 0xFFFFFFFF)


class PLAIN(Register, offset=0x100):
    """For the tests."""

    low = Field(3, 0, "four bits")
    flag = Field(8, 8, "one bit")
    high = Field(31, 16, "sixteen bits")


class ARRAY(Register, offset=0x200, stride=8, count=4):
    """For the tests."""


class Io:
    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.seen: list[tuple[str, int]] = []

    def read32(self, offset: int) -> int:
        self.seen.append(("read", offset))
        return self.value

    def write32(self, offset: int, value: int) -> None:
        self.seen.append(("write", offset))
        self.value = value


@given(raw=WORD, low=st.integers(0, 15), high=st.integers(0, 0xFFFF))
def test_replacing_fields_changes_these_bits_and_no_others(raw: int, low: int, high: int) -> None:
    value = PLAIN(raw).replace(low=low, high=high)
    assert (value.low, value.high, value.flag) == (low, high, raw >> 8 & 1)
    assert value.raw & 0xFEF0 == raw & 0xFEF0
    assert value.decode() == {"low": low, "flag": raw >> 8 & 1, "high": high}
    assert PLAIN.of(**value.decode()).raw == value.raw & 0xFFFF010F
    io = Io()
    value.write(io, base=0x1000)
    assert PLAIN.read(io, base=0x1000) == value and io.seen == [("write", 0x1100), ("read", 0x1100)]


@pytest.mark.parametrize("fields", [{"low": 16}, {"flag": 2}, {"high": -1}, {"other": 0}])
def test_what_does_not_fit_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ContractError):
        PLAIN.zero().replace(**fields)


def test_a_value_does_not_change() -> None:
    with pytest.raises(ContractError):
        PLAIN.zero().raw = 1


def test_elements_lie_a_stride_apart_and_there_are_no_others() -> None:
    assert [ARRAY.address(0x10, index) for index in range(4)] == [0x210, 0x218, 0x220, 0x228]
    for index in (-1, 4):
        with pytest.raises(ContractError):
            ARRAY.address(0, index)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"offset": 2}, {}),
        ({"offset": 0, "count": 2}, {}),
        ({"offset": 0, "count": 2, "stride": 2}, {}),
        ({"offset": 0}, {"a": Field(3, 0, ""), "b": Field(4, 3, "")}),
        ({"offset": 0}, {"decode": Field(3, 0, "")}),
    ],
)
def test_a_wrong_declaration_is_refused_at_once(options: dict[str, int], fields: dict[str, Field]) -> None:
    with pytest.raises((ContractError, RuntimeError)) as caught:  # Python 3.11 wraps what __set_name__ raises
        type("WRONG", (Register,), fields, **options)
    assert isinstance(caught.value, ContractError)


@pytest.mark.parametrize(("high", "low"), [(32, 0), (0, 1), (3, -1)])
def test_a_field_lies_in_its_word(high: int, low: int) -> None:
    with pytest.raises(ContractError):
        Field(high, low, "")


@pytest.mark.parametrize(("word", "error"), [(0xFFFFFFFF, True), (0xBADF1234, True), (0xBAD00000, True), (0xBAE00000, False), (0, False)])
def test_a_bus_error_is_no_data_where_it_is_asked_for_life(word: int, error: bool) -> None:
    assert is_bus_error(word) == error and PLAIN.read(Io(word)).raw == word
    if error:
        with pytest.raises(DeviceGone, match="PLAIN"):
            PLAIN.read_alive(Io(word))
    else:
        assert PLAIN.read_alive(Io(word)).raw == word


def test_every_register_and_field_has_a_word_on_what_it_means() -> None:
    for found in walk_packages(nvcore.hw.__path__, "nvcore.hw."):
        import_module(found.name)
    ours = [one for one in registers() if one.__module__.startswith("nvcore.hw.")]
    assert len(ours) > 60
    assert [one.__name__ for one in ours if not (one.__doc__ or "").strip()] == []
    assert [f"{one.__name__}.{name}" for one in ours for name, field in one.FIELDS.items() if not field.doc] == []
