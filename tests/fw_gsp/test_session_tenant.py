"""Tenants: handles that come round again, and what a tenant that cannot be taken down says."""

from __future__ import annotations

from itertools import count

import pytest

from nvcore.api.errors import ContractError, FirmwareRefused
from nvcore.api.families import ChannelSpec

from .soft import bench
from .test_session_objects import make_channel


@pytest.mark.parametrize("number", [0x10000, 0x100000])
def test_a_client_number_that_comes_round_again_is_never_that_of_a_living_tenant(number: int) -> None:
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        first = session.open_tenant("first")
        session.book._numbers = count(number)
        second = session.open_tenant("second")
        assert second.client != first.client and gpu.violations() == []
        first.close()
        second.close()
        assert session.book.clients == set()


def test_the_number_of_a_space_that_lives_on_is_left_out_when_the_numbers_come_round() -> None:
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        tenant, family = session.open_tenant("t"), session.family("memory")
        first = family.create_space(tenant)
        tenant._numbers = count((first.handle & 0xFFFFF) + 0x100000)
        assert family.create_space(tenant).handle != first.handle and gpu.violations() == []


def test_what_was_freed_or_went_with_its_tenant_cannot_be_used_and_is_asked_of_nobody() -> None:
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        memory, channels = session.family("memory"), session.family("channel")
        tenant, other = session.open_tenant("t"), session.open_tenant("other")
        space, channel = make_channel(gpu, session, tenant)
        channels.destroy(channel)
        memory.free_space(space)
        others = make_channel(gpu, session, other, channel=9)
        other.close()
        sent = session.port.sender.sent
        for gone, one in ((space, channel), others):
            for call in (
                lambda gone=gone: memory.set_page_directory(gone, 0x400000, entries=4),
                lambda gone=gone: memory.unset_page_directory(gone),
                lambda gone=gone: channels.create(gone, ChannelSpec("COPY0", 8, 0x100000, 1024, 0x500000, 0x501000, 0x1000, 0x2000)),
                lambda one=one: channels.create_engine_object(one),
                lambda one=one: channels.enable(one),
                lambda one=one: channels.disable(one),
            ):
                with pytest.raises(ContractError):
                    call()
            memory.free_space(gone)  # idempotent
            channels.destroy(one)
        assert session.port.sender.sent == sent and gpu.violations() == []


def test_a_tenant_whose_client_cannot_be_freed_says_so_and_its_handle_is_given_to_nobody() -> None:
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        free = session.rm.free

        def refuse(client: int, handle: int, what: str) -> None:
            if handle == client:
                raise FirmwareRefused(f"the firmware refused {what}")
            free(client, handle, what)

        session.rm = type("Rm", (), {"free": staticmethod(refuse)})()
        with pytest.raises(FirmwareRefused):
            tenant.close()
        assert not tenant.open and tenant not in session.book.tenants and tenant.client in session.book.clients
        tenant.close()
