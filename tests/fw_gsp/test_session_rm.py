"""Calls on objects: what an answer must be before anything of it is used, and what is undone when it is none."""

from __future__ import annotations

import struct

import pytest

from nvcore.api.errors import FormatError
from nvcore_fw_gsp.abi import load
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout
from nvcore_fw_gsp.session.rm import Rm

FREE, CONTROL, ALLOC = 0x0A, 0x4C, 0x67
CLIENT, TARGET = 0xC1D00001, 0x90F00002


class Port:
    """Answers as it is told: the request with words changed, cut to a size, or not at all."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.words: dict[int, int] = {}
        self.size: int | None = None
        self.silent = False

    def call(self, function: int, payload: bytes, what: str, timeout: float, head: int) -> bytes:
        self.sent.append((function, bytes(payload)))
        if function != FREE and self.silent:
            raise CallTimeout(f"no answer to {what}")
        answer = bytearray(payload)
        for word, value in self.words.items():
            struct.pack_into("<I", answer, word * 4, value)
        return bytes(answer[: self.size])


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def rm(port: Port) -> Rm:
    return Rm(port, load("570.144"), 1, 2)  # type: ignore[arg-type]


CALLS = {
    "control": lambda rm: rm.control(CLIENT, TARGET, 0x801813, b"parameters", "a test"),
    "alloc": lambda rm: rm.alloc(CLIENT, 5, TARGET, 0x90F1, b"parameters", "a test"),
    "free": lambda rm: rm.free(CLIENT, TARGET, "a test"),
}
STATUS = {"control": 3, "alloc": 4, "free": 3}
HEAD = {"control": 24, "alloc": 32, "free": 16}


@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_carries_the_firmware_s_number_and_its_name(rm, port, call):
    port.words[STATUS[call]] = 0x1F
    with pytest.raises(CallRefused, match="INVALID_ARGUMENT") as caught:
        CALLS[call](rm)
    assert caught.value.status == 0x1F and len(port.sent) == 1


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_is_too_short_is_none(rm, port, call):
    whole = HEAD[call] + (len(b"parameters") if call == "control" else 0)
    port.size = whole
    CALLS[call](rm)
    port.size = whole - 1
    with pytest.raises(FormatError, match="too short"):
        CALLS[call](rm)


@pytest.mark.parametrize("word", [0, 1, 2])
@pytest.mark.parametrize("call", ["control", "alloc"])
def test_an_answer_about_another_object_or_question_is_none(rm, port, call, word):
    port.words[word] = 0x77
    with pytest.raises(FormatError, match="something else"):
        CALLS[call](rm)


@pytest.mark.parametrize("how", ["silent", "short", "another's"])
def test_an_object_of_which_nobody_knows_whether_it_was_made_is_freed_by_its_handle(rm, port, how):
    port.silent, port.size = how == "silent", 8 if how == "short" else None
    port.words = {3: 0x77} if how == "another's" else {}
    with pytest.raises((CallTimeout, FormatError)):
        CALLS["alloc"](rm)
    assert port.sent[1:] == [(FREE, struct.pack("<4I", CLIENT, 0, TARGET, 0))]


def test_what_comes_back_of_a_control_is_its_parameters_and_no_more(rm, port):
    assert rm.control(CLIENT, TARGET, 7, b"parameters", "a test") == b"parameters"
    (sent,) = port.sent
    assert sent == (CONTROL, struct.pack("<6I", CLIENT, TARGET, 7, 0, 10, 0) + b"parameters")
