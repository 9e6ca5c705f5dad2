"""The firmware's register sequences: what they may do, what they may not, and that nothing of a bad one is believed."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.boot.errors import SequencerError
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.sequencer import ALLOWED, run_sequence

from .test_queue_rings import Clock

GSP = 0x110000


class Bar:
    """Registers that keep what is written."""

    index, size, mapped, prefetchable = 0, 1 << 24, True, False

    def __init__(self) -> None:
        self.values: dict[int, int] = {0: 0x170000A1}
        self.writes: list[tuple[int, int]] = []

    def read32(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        self.values[offset] = value
        self.writes.append((offset, value))


def run(*words: int, used: int | None = None, size: int | None = None, bar: Bar | None = None, clock: Clock | None = None):  # type: ignore[no-untyped-def]
    bar = bar or Bar()
    clock = clock or Clock()
    boot = SimpleNamespace(io=BootIo(bar, clock, 1.0), context=SimpleNamespace(clock=clock, time_scale=1.0))  # type: ignore[arg-type]
    count = len(words)
    payload = struct.pack("<2I32x", count + 8 if size is None else size, count if used is None else used) + struct.pack(
        f"<{count}I", *words
    )
    return run_sequence(boot, payload, 20.0), bar, clock  # type: ignore[arg-type]


def test_an_empty_sequence_is_one():
    assert run()[0] == 0


def test_writes_changes_delays_and_stores_do_what_they_say():
    count, bar, clock = run(0, GSP + 0x40, 5, 1, GSP + 0x40, 0xF, 0xA, 3, 1500, 4, GSP + 0x40, 7, 2, GSP + 0x40, 0xFF, 0xA, 0, 9)
    assert count == 5
    assert bar.writes == [(GSP + 0x40, 5), (GSP + 0x40, 0xA)]
    assert clock.time == pytest.approx(0.0015)


@pytest.mark.parametrize("address", [0x9400, 0x110000 - 4, 0x114000, 0x88001, 0xFFFFFFFC, 0xB82200, 0x1700])
@pytest.mark.parametrize("form", [(0, 1), (1, 0, 1), (2, 0, 0, 1, 0), (4, 0)])
def test_a_register_outside_the_list_is_refused_and_not_touched(address, form):
    bar = Bar()
    with pytest.raises(SequencerError, match="outside the list"):
        run(form[0], address, *form[1:], bar=bar)
    assert bar.writes == []


@pytest.mark.parametrize(
    ("words", "text"),
    [((9,), "unknown command"), ((0, GSP), "cut off"), ((4, GSP, 8), "no such place"), ((2, GSP + 8, 1, 1, 1000, 0x77), "without end")],
)
def test_a_bad_command_says_which_word(words, text):
    with pytest.raises(SequencerError, match=text) as caught:
        run(*words)
    assert "command word 0" in str(caught.value)


def test_a_count_beyond_the_buffer_is_refused():
    with pytest.raises(SequencerError, match="longer than its buffer"):
        run(3, 1, used=3)
    with pytest.raises(SequencerError, match="longer than its buffer"):
        run(3, 1, 3, 1, size=2)


@pytest.mark.parametrize(
    "words",
    [(3, 0xFFFFFFFF), (3, 1_900_000) * 8000, (2, GSP + 8, 1, 1, 0xFFFFFFFF, 0), (2, GSP + 8, 1, 1, 19_999_000, 0, 3, 2000) * 2],
    ids=["one delay", "many delays", "a poll", "a poll and delays"],
)
def test_the_firmware_does_not_choose_how_long_the_host_waits(words):
    bar, clock = Bar(), Clock()
    if words[0] == 2 and len(words) > 6:
        clock.on_sleep.append(lambda: bar.values.__setitem__(GSP + 8, 1) if clock.time > 19.998 else None)
    with pytest.raises(SequencerError):
        run(*words, bar=bar, clock=clock)
    assert clock.time < 20.1


def test_a_sequence_of_slow_commands_ends_with_the_stage():
    clock = Clock()

    class Slow(Bar):
        def write32(self, offset: int, value: int) -> None:
            clock.sleep(3)

    with pytest.raises(SequencerError, match="does not end") as caught:
        run(*(0, GSP + 0x40, 5) * 1000, bar=Slow(), clock=clock)
    assert clock.time < 24 and "command word 21" in str(caught.value)


@pytest.mark.parametrize(("asked", "limit"), [(1000, 0.001), (2_000_000, 2.0), (0, 4.0)])
def test_a_poll_lasts_as_long_as_it_says_and_four_seconds_where_it_says_nothing(asked, limit):
    clock = Clock()
    with pytest.raises(SequencerError, match="without end"):
        run(2, GSP + 8, 1, 1, asked, 0, clock=clock)
    assert limit <= clock.time < limit + 0.001


class Falcons:
    """What a resume does with both falcons, in order; SEC2's mailbox holds `result`."""

    def __init__(self, result: int = 0) -> None:
        self.steps: list[object] = []
        self.gsp = SimpleNamespace(
            reset=lambda: self.steps.append("reset"), set_mailboxes=lambda low, high: self.steps.append((low, high)),
            prepare_dma=lambda: None, start=lambda: None, wait_halted=lambda what: None,
        )  # fmt: skip
        self.sec2 = SimpleNamespace(start=lambda: self.steps.append("start SEC2"), mailbox0=lambda: result)


def resume(bar: Bar, result: int = 0) -> tuple[list[object], float]:
    falcons, clock = Falcons(result), Clock()
    boot = SimpleNamespace(
        io=BootIo(bar, clock, 1.0), context=SimpleNamespace(clock=clock, time_scale=1.0), gsp=falcons.gsp, sec2=falcons.sec2,  # type: ignore[arg-type]
        libos=SimpleNamespace(bus_address=lambda offset: 0x7_1234_5000 + offset), bootloader=SimpleNamespace(app_version=7),
    )  # fmt: skip
    run_sequence(boot, struct.pack("<2I32xI", 9, 1, 8), 20.0)  # type: ignore[arg-type]
    return falcons.steps, clock.time


HANDSHAKE, OS, CORE = 0x1180F8, GSP + 0x80, GSP + 0x1240


def test_a_resume_gives_the_core_its_arguments_again_and_waits_for_sec2_to_have_started_it():
    bar = Bar()
    bar.values.update({HANDSHAKE: 1 << 26, CORE: 1})
    assert resume(bar) == (["reset", (0x1234_5000, 7), "start SEC2"], 0.0)
    assert bar.writes == [(OS, 7)]


@pytest.mark.parametrize(
    ("values", "result", "text"),
    [({CORE: 1}, 0, "SEC2 to resume the GSP"), ({HANDSHAKE: 1 << 26, CORE: 1}, 0x33, "seen 0x33"),
     ({HANDSHAKE: 1 << 26}, 0, "not active after a resume")],
)  # fmt: skip
def test_a_resume_that_did_not_come_about_is_told(values, result, text):
    bar = Bar()
    bar.values.update(values)
    with pytest.raises(NvcoreError, match=text):
        resume(bar, result)


def test_an_error_pattern_is_not_data():
    bar = Bar()
    bar.values[GSP + 0x40] = 0xBADF5040
    with pytest.raises(NvcoreError, match="cannot be read"):
        run(1, GSP + 0x40, 1, 1, bar=bar)
    assert bar.writes == []


def harmless(blob: bytes) -> str:
    """Run any bytes as a sequence: the words of its refusal, or "" when it was run. It touches registers of the list and nothing else."""
    bar, clock = Bar(), Clock()
    bar.values[GSP + 0x100] = 0x10
    boot = SimpleNamespace(io=BootIo(bar, clock, 0.001), context=SimpleNamespace(clock=clock, time_scale=0.001))  # type: ignore[arg-type]
    boot.gsp = SimpleNamespace(reset=lambda: None, prepare_dma=lambda: None, start=lambda: None, wait_halted=lambda what: None)
    boot.libos = SimpleNamespace(bus_address=lambda offset: 0x1000)
    boot.bootloader = SimpleNamespace(app_version=0)
    boot.gsp.set_mailboxes = lambda low, high: None
    boot.sec2 = SimpleNamespace(start=lambda: None, mailbox0=lambda: 0)
    refusal = ""
    try:
        run_sequence(boot, blob, 20.0)  # type: ignore[arg-type]
    except NvcoreError as error:
        refusal = error.what
    for offset, _ in bar.writes:
        assert any(start <= offset < end for start, end, _ in ALLOWED)
    assert clock.time < 20.1
    return refusal


def test_arbitrary_bytes_give_declared_errors_and_touch_only_the_list():
    refusals = set()

    @settings(max_examples=500, deadline=None)
    @given(st.binary(max_size=200))
    def run(blob):
        head = struct.pack("<2I32x", 1000, len(blob) // 4)
        refusals.add(harmless(head + blob if len(blob) % 2 else blob))

    run()
    assert len(refusals - {""}) > 1, refusals


def test_two_thousand_mutations_of_a_valid_sequence_are_run_or_refused_and_touch_only_the_list():
    words = (0, GSP + 0x40, 5, 1, GSP + 0x40, 0xF, 0xA, 3, 1500, 4, GSP + 0x40, 7, 2, GSP + 0x40, 0xFF, 0xA, 0, 9, 5, 6, 7)
    valid = struct.pack(f"<2I32x{len(words)}I", len(words) + 8, len(words), *words)
    assert harmless(valid) == ""
    chooser, refused = random.Random(0), set()
    ran = 0
    for _ in range(2000):
        blob = bytearray(valid)
        for _ in range(chooser.randint(1, 4)):
            blob[chooser.choice((chooser.randrange(8), chooser.randrange(40, len(blob))))] = chooser.randrange(256)
        refusal = harmless(bytes(blob[: chooser.choice((len(blob), chooser.randint(0, len(blob))))]))
        refused.add(refusal)
        ran += not refusal
    said = " / ".join(sorted(refused))
    assert all(w in said for w in ("outside the list", "unknown command", "cut off", "longer than its buffer", "no such place")), said
    assert 20 < ran < 1980
