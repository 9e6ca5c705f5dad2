"""Arbitrary bytes and mutations of valid files end in declared errors, at once."""

import json
import random
import time
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.images.container import GenericBootloader, HsUcode, RiscvUcode
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.images.gsp import GspImage
from nvcore_fw_gsp.images.inspect import inspect_file

from . import image_files as write
from . import rom_files
from .memory_source import MemorySource


def use_hs(source):
    ucode = HsUcode(source)
    for fuse in (0, 1):
        ucode.image(ucode.signature_index(fuse))


def use_gsp(source):
    image = GspImage(source)
    for family in image.signatures:
        image.signature(family)
    image.read_into(memoryview(bytearray(min(image.size, 1 << 16))))


def use_fmc(source):
    fmc = Fmc(source)
    fmc.image()
    fmc.verify()


KINDS = {
    "booter": (use_hs, write.hs()),
    "bootloader": (lambda source: RiscvUcode(source).image(), write.riscv(5, 0x6000)),
    "generic": (lambda source: GenericBootloader(source).code_bytes(), write.generic()),
    "gsp": (use_gsp, write.gsp(image=bytes(5000))),
    "fmc": (use_fmc, write.fmc()),
}


INSPECTED = {"rom": rom_files.rom(rom_files.ucode_v2(), ifr=1), **{kind: valid for kind, (_, valid) in KINDS.items()}}


@pytest.mark.parametrize("kind", INSPECTED)
def test_two_thousand_mutations_of_a_file_are_told_or_refused_by_whoever_looks_into_it(kind, monkeypatch):
    chooser, valid, told = random.Random(kind), INSPECTED[kind], 0
    data = bytearray(valid)
    monkeypatch.setattr("nvcore_fw_gsp.images.inspect.FileSource", lambda path: nullcontext(MemorySource(bytes(data))))
    assert inspect_file("file")["bytes"] == len(valid)
    for _ in range(2000):
        data[:] = valid
        for _ in range(chooser.choice((1, 1, 2, 5))):
            at = chooser.choice((chooser.randrange(64), chooser.randrange(min(len(data), 0x800))))
            data[at : at + 4] = chooser.choice((bytes(4), b"\xff" * 4, chooser.randbytes(4)))
        try:
            told += bool(json.dumps(inspect_file("file")))
        except NvcoreError as error:
            assert error.code.startswith("NVC-20")
    assert 20 < told < 1980


def attempt(use, data: bytes) -> bool:
    try:
        use(MemorySource(data))
    except NvcoreError as error:
        assert error.code.startswith("NVC-20")
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_are_refused_by_declared_errors(kind, data):
    assert not attempt(KINDS[kind][0], data)


@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_mutations_end_in_declared_errors_and_quickly(kind):
    use, valid = KINDS[kind]
    assert attempt(use, valid)
    random_ = random.Random(kind)
    headers = [at for at in range(0, min(len(valid), 0x400), 4)] + [at for at in range(max(0, len(valid) - 0x400), len(valid) - 4, 4)]
    refused = 0
    start = time.monotonic()
    for _ in range(2000):
        data = bytearray(valid)
        for _ in range(random_.choice((1, 1, 2, 5))):
            at = random_.choice(headers)
            data[at : at + 4] = random_.choice(
                (bytes(4), b"\xff" * 4, random_.randbytes(4), (len(valid) + random_.randint(-8, 8)).to_bytes(4, "little"), b"\0\0\0\x80")
            )
        if random_.random() < 0.2:
            del data[random_.randrange(len(data)) :]
        refused += not attempt(use, bytes(data))
    assert 100 < refused < 2000
    assert time.monotonic() - start < 20
