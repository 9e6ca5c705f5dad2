"""What the inventory is made of, with bytes that nobody vouches for: a record that makes sense, or a declared error."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from nvcore.api.errors import NvcoreError

from .soft import CASES, bench

WORDS = (0, 1, 2, 0x7F, 0xFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(chooser: random.Random, valid: bytes) -> bytes:
    """One to four words changed, mostly of the beginning, where the lengths are."""
    data = bytearray(valid)
    for _ in range(chooser.randint(1, 4)):
        at = chooser.randrange(len(data) // 4 if chooser.random() < 0.5 else min(len(data) // 4, 16)) * 4
        struct.pack_into("<I", data, at, chooser.choice((*WORDS, chooser.getrandbits(32))))
    return bytes(data)


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_seven_hundred_mutations_of_what_each_firmware_tells_of_its_gpu_are_an_inventory_or_a_declared_error(chip, version):
    chooser, seen = random.Random(0), Counter()
    with bench(chip, version) as gpu:
        session = gpu.open()
        family, rm = session.family("inventory"), session.rm
        answers: dict[tuple[int, bytes], bytes] = {}
        asked = 0

        def answer(command: int, params: bytes) -> bytes:
            nonlocal asked
            asked += 1
            key = command, bytes(params)
            if key not in answers:
                answers[key] = rm.control(rm.internal_client, rm.internal_subdevice, command, params, "a test")
            return mutated(chooser, answers[key]) if disturbed and chooser.random() < 0.4 else answers[key]

        class Rm:
            abi = rm.abi

            def internal(self, name: str, params: bytes, what: str) -> bytes:
                return answer(self.abi.enum(name), params)

        session.rm, disturbed = Rm(), False
        plain, disturbed = family.read(), True
        layout, static = session.boot.abi.struct("GspStaticConfigInfo"), session.boot.static_info
        regions = layout.field("fbRegionInfoParams").offset
        for _ in range(700):
            raw = bytearray(static)
            if chooser.random() < 0.5:
                part = slice(regions, regions + 96) if chooser.random() < 0.7 else slice(0, len(raw))
                raw[part] = mutated(chooser, static[part])
            session.static_info, asked = layout.unpack(raw), 0
            try:
                found = family.read()
            except NvcoreError as error:
                seen[type(error).__name__] += 1
                continue
            assert asked < 700, "the firmware does not choose how often it is asked"
            assert sum(region.range.size for region in found.regions) == plain.memory_size
            assert all(one.range.end == two.range.start for one, two in zip(found.regions, found.regions[1:], strict=False))
            assert len(found.engines) <= 16 * 32 and found.name and found.uuid.startswith("GPU-")
            seen["same" if found == plain else "another"] += 1
    assert set(seen) == {"same", "another", "FormatError", "CallRefused"} and seen["FormatError"] > 50, seen
