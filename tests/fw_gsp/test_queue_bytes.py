"""Elements of the status queue whose bytes nobody vouches for, the checksum repaired so that every check behind it is reached."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.queue.errors import QueueCorrupt
from nvcore_fw_gsp.queue.status import StatusReceiver

from .peer import Peer, xor_words
from .test_queue_calls import Desk
from .test_queue_rings import data, pair

LENGTHS = range(0x20, 16 * 0x1000 - 0x30 + 1)


def start_at(peer: Peer, receiver: StatusReceiver, slot: int) -> None:
    """The next record begins in `slot`."""
    peer.write = receiver._read = receiver._pointer[0] = slot
    struct.pack_into("<I", peer.memory, peer.status + 0x10, slot)


def repair(peer: Peer, slot: int) -> None:
    """Make the checksum fit what the record's own length covers."""
    at = peer.status + 0x1000 + slot * 0x1000
    length = peer.u32(at + 0x38)
    if length in LENGTHS:
        struct.pack_into("<I", peer.memory, at + 0x20, 0)
        whole = peer._bytes(peer.status, peer.status_slots, slot, -(-(0x30 + length) // 8) * 8)
        struct.pack_into("<I", peer.memory, at + 0x20, xor_words(whole))


def expected(peer: Peer, slot: int) -> object:
    """What a reader that checks everything makes of the element in `slot`: a record, or the words of its refusal."""
    write = peer.u32(peer.status + 0x10)
    if write == slot:
        return None
    if write >= peer.status_slots:
        return "write pointer out of range"
    head = peer._bytes(peer.status, peer.status_slots, slot, 0x50)
    _, number, count, _, version, signature, length, function, result, _, sequence, _ = struct.unpack_from("<12I", head, 32)
    if length not in LENGTHS:
        return "length out of range"
    if count != -(-(0x30 + length) // 0x1000) or count > (write - slot) % peer.status_slots:
        return "slot count does not fit"
    whole = peer._bytes(peer.status, peer.status_slots, slot, -(-(0x30 + length) // 8) * 8)
    if xor_words(whole):
        return "checksum wrong"
    if (version, signature) != (0x03000000, 0x43505256):
        return "not an RPC header"
    if number:
        return "record number skips" if number < 0x80000000 else None
    return function, result, sequence, whole[0x50 : 0x30 + length]


def outcome(receiver: StatusReceiver) -> object:
    try:
        return receiver.take()
    except QueueCorrupt as error:
        return error.what.rpartition(": ")[2]


def mutate(chooser: random.Random, peer: Peer, slot: int, size: int) -> None:
    """Change one to three bytes, mostly of the header, and a whole word of it now and then."""
    ring = peer.status + 0x1000
    span = peer.status_slots * 0x1000
    for _ in range(chooser.randint(1, 3)):
        place = 32 + chooser.randrange(0x30) if chooser.random() < 0.7 else chooser.randrange(0x50 + size)
        peer.memory[ring + (slot * 0x1000 + place) % span] ^= 1 << chooser.randrange(8)
    if chooser.random() < 0.4:
        word, value = chooser.choice([(1, 0xFFFFFFFF), (1, 5), (2, 0), (2, 2), (6, 0), (6, 0x20), (6, 0x1000), (6, 0xFFD0), (6, 0xFFD1)])
        struct.pack_into("<I", peer.memory, ring + slot * 0x1000 + 32 + word * 4, value)


@pytest.mark.parametrize("repaired", [True, False])
def test_two_thousand_mutations_of_a_valid_element_meet_the_check_that_is_theirs(repaired):
    chooser, seen = random.Random(1), Counter()
    peer, _, receiver, _ = pair()
    for _ in range(2000):
        slot, size = chooser.choice((0, 30, 61, 62)), chooser.choice((0, 40, 5000))
        start_at(peer, receiver, slot)
        peer.sent = receiver._expected = 0
        peer.put(0x4C, data(size), 3, 9)
        mutate(chooser, peer, slot, size)
        if repaired:
            repair(peer, slot)
        want = expected(peer, slot)
        assert outcome(receiver) == want
        seen["record" if isinstance(want, tuple) else want] += 1
    everything = {"length out of range", "slot count does not fit", "record", None, "record number skips", "not an RPC header"}
    if repaired:
        assert set(seen) == everything, seen
    else:
        assert seen["checksum wrong"] > 500 and {"length out of range", "slot count does not fit"} < set(seen), seen


def test_two_thousand_elements_of_arbitrary_bytes_are_refused():
    chooser, seen = random.Random(2), Counter()
    peer, _, receiver, _ = pair()
    ring = peer.status + 0x1000
    for _ in range(2000):
        slot = chooser.randrange(63)
        start_at(peer, receiver, slot)
        receiver._expected = receiver.stale = 0
        blob = bytearray(chooser.randbytes(chooser.choice((0x50, 0x1000, 0x2000))))
        plausible = chooser.randrange(4)  # how much of it is what a firmware would write: else only the first check is ever met
        if plausible > 0:
            length = chooser.choice((0x20, 0x40, 0xF00, 0x1000))
            struct.pack_into("<I", blob, 0x38, length)
            struct.pack_into("<I", blob, 0x28, -(-(0x30 + length) // 0x1000))
        if plausible > 2:
            struct.pack_into("<II", blob, 0x30, 0x03000000, 0x43505256)
        room = (63 - slot) * 0x1000
        peer.memory[ring + slot * 0x1000 : ring + slot * 0x1000 + min(room, len(blob))] = blob[:room]
        write = chooser.choice(((slot + 3) % 63, chooser.randrange(80), chooser.getrandbits(32)))
        struct.pack_into("<I", peer.memory, peer.status + 0x10, write)
        if plausible > 1:
            repair(peer, slot)
        want = expected(peer, slot)
        got = outcome(receiver)
        if want is None and got != want:  # behind one that was skipped lies another: this one's number was old
            want = got if receiver.stale else want
        assert got == want
        seen[want] += 1
    assert {"write pointer out of range", "length out of range", "slot count does not fit", "checksum wrong", "not an RPC header",
            "record number skips"} <= set(seen), seen  # fmt: skip


def test_mutated_answers_end_their_call_with_bytes_or_a_declared_error():
    chooser, seen = random.Random(3), Counter()
    desk = Desk()
    for number in range(600):
        if desk.port.dead is not None or number % 50 == 0:
            desk = Desk()
        peer = desk.peer

        def answer(function: int, sequence: int, payload: bytes, peer: Peer = peer) -> None:
            slot = peer.write
            peer.put(function, payload, 0, sequence)
            mutate(chooser, peer, slot, len(payload))
            repair(peer, slot)

        peer.answer = answer
        started = desk.clock.now()  # type: ignore[attr-defined]
        try:
            got: object = type(desk.call(data(chooser.choice((4, 40, 5000))), timeout=2.0))
        except NvcoreError as error:
            got = type(error).__name__
        assert desk.clock.now() - started <= 2.1, "no hang"  # type: ignore[attr-defined]
        assert desk.port.waiting == 0
        seen[got] += 1
    assert set(seen) == {bytes, "CallRefused", "CallTimeout", "FirmwareIsDead"}, seen
    assert min(seen.values()) > 5, seen
