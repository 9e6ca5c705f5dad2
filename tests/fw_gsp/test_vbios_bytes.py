"""Arbitrary bytes and mutations of valid ROMs end in declared errors, at once."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.vbios.bit import read_vbios
from nvcore_fw_gsp.vbios.fwsec import Fwsec
from nvcore_fw_gsp.vbios.rom import open_rom

from . import rom_files as write

VALID = {
    "v3": write.rom(), "v2": write.rom(write.ucode_v2()), "split": write.rom(write.ucode_v2(), split=True),
    "ifr1": write.rom(write.ucode_v2(), ifr=1), "ifr3": write.rom(ifr=3), "no npde": write.rom(npde=False, token=8),
}  # fmt: skip


def attempt(data: bytes) -> bool:
    try:
        ucode = Fwsec(read_vbios(open_rom("bytes", lambda at, size: data[at : at + size], len(data))))
        if ucode.version == 2:
            ucode.load_sb()
    except NvcoreError as error:
        assert error.code.startswith("NVC-20")
        return False
    return True


@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x55\xaa", b"NVGI"]))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_end_in_declared_errors(data, head):
    assert not attempt(head + data)


@pytest.mark.parametrize("kind", VALID)
def test_mutations_end_in_declared_errors_and_quickly(kind):
    valid = VALID[kind]
    assert attempt(valid)
    random_ = random.Random(kind)
    places = [at for at in range(len(valid) - 4) if any(valid[at : at + 4])]
    refused = 0
    start = time.monotonic()
    for _ in range(2000):
        data = bytearray(valid)
        for _ in range(random_.choice((1, 2, 5, 20))):
            at = random_.choice(places[:600] if random_.random() < 0.5 else places)
            data[at : at + 4] = random_.choice(
                (bytes(4), b"\xff" * 4, random_.randbytes(4), (len(valid) + random_.randint(-8, 8)).to_bytes(4, "little"), b"\0\0\0\x80")
            )
        if random_.random() < 0.1:
            del data[random_.randrange(len(data)) :]
        refused += not attempt(bytes(data))
    assert refused > 100
    assert time.monotonic() - start < 20
