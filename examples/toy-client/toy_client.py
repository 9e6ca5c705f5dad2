"""A client of nvcore: takes the function "graphics" and keeps one page of GPU memory, which it writes by queued stores.

Owns its grant, the lease on its page, and a published fence for every store that is not flushed yet. `store` and `flush` may be called from
any thread, the other methods as `nvcore.api.client` says; that is also where they are documented.
"""
# ruff: noqa: D101, D102, D103

from nvcore.api import hookimpl
from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function
from nvcore.api.errors import FirmwareDead, NvcoreError
from nvcore.api.events import Fault
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.api.marks import follows, may_sleep, signalling_safe
from nvcore.api.needs import NO_NEEDS
from nvcore.api.offers import ClientOffer, HostInfo
from nvcore.locks import Fence, Lock


@follows(Client)
class Page:
    def __init__(self, context: ClientContext) -> None:
        self._lock, self._queue = Lock("toy-page", leaf=True), list[tuple[Fence, int, bytes]]()
        self._grant = context.grant(GrantRequest("page", vram=2 << 20))
        self._lease = self._grant.map(Range(self._grant.vram[0].start, 0x1000))

    @may_sleep
    def store(self, offset: int, data: bytes) -> Fence:
        fence = Fence(f"toy store at {offset:#x}")  # allocates: before the lock, and before it is published
        fence.publish()
        with self._lock:
            self._queue.append((fence, offset, data))
        return fence

    @signalling_safe
    def flush(self, error: NvcoreError | None = None) -> None:  # with an error: give up what is queued
        with self._lock:
            queue, self._queue = self._queue, []
        for fence, offset, data in queue:
            try:
                if error is None:
                    self._lease.write(offset, data)
            except NvcoreError as revoked:  # on_fault is on its way
                error = revoked
            fence.signal(error)

    def on_fault(self, fault: Fault) -> None:
        self.flush(FirmwareDead(f"the store was hit by {fault.cause}"))

    def quiesce(self, reason: str, deadline: float, generation: int) -> None:
        self.flush(FirmwareDead(f"the page is quiesced: {reason}"))

    def resume(self, vram: str, generation: int) -> None:
        if not self._lease.valid:  # it went with its generation; the grant is as before
            self._lease = self._grant.map(self._lease.range)

    def status(self) -> ClientStatus:
        return ClientStatus("running", f"{len(self._queue)} stores queued")

    def remove(self) -> None:
        self.flush(FirmwareDead("the client leaves"))
        self._grant.release()


@follows(ClientDriver)
class Driver:
    name = "toy-client"

    def match(self, function: Function) -> bool:
        return function.kind == "graphics"

    def probe(self, context: ClientContext) -> Client:
        return Page(context)


@hookimpl
def nvcore_client_drivers(host: HostInfo) -> list[ClientOffer]:
    return [ClientOffer("toy-client", "a page of memory", ("graphics",), lambda identity: NO_NEEDS, Driver)]
