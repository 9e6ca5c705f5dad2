"""Tenants: handles that come round again, and what a tenant that cannot be taken down says."""

from __future__ import annotations

from itertools import count

import pytest

from nvcore.api.errors import FirmwareRefused

from .soft import bench


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
