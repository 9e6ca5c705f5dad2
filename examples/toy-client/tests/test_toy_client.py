"""The toy client on a fake GPU: what an author's own tests look like."""

import toy_client

from nvcore.api.errors import FirmwareDead
from nvcore.testing.contracts import check_client
from nvcore.testing.modules import host_info


def test_a_store_reaches_the_memory_when_it_is_flushed(nvcore_host):
    """Nothing before the flush, everything after it."""
    host = nvcore_host(toy_client)
    page = host.client("toy-client")
    fence = page.store(0, b"hello")
    assert host.fake.vram(0, 5) == bytes(5)
    page.flush()
    assert fence.signalled and fence.error is None and host.fake.vram(0, 5) == b"hello"
    assert host.problems() == []


def test_a_dying_firmware_gives_up_what_is_queued_and_the_page_goes_on(nvcore_host):
    """The fence gets its error, the memory is zeroed, the next store works."""
    host = nvcore_host(toy_client)
    page = host.client("toy-client")
    fence = page.store(0, b"lost")
    host.gpu_fault()
    assert isinstance(fence.error, FirmwareDead)
    after = page.store(0, b"kept")
    page.flush()
    assert after.error is None and host.fake.vram(0, 4) == b"kept"


def test_it_keeps_the_contract(nvcore_host):
    """Every clause, with a store under way at each fault."""
    (offer,) = toy_client.nvcore_client_drivers(host_info())

    def use(page):
        fence = page.store(8, b"works")
        page.flush()
        assert fence.error is None

    check_client(offer, use=use, busy=lambda page: page.store(0, b"under way"))
