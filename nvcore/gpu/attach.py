"""Matching clients to the functions of a booted GPU.

Owns no state; runs on the life-cycle thread. Two clients that want one function are a reported conflict and neither gets it. A client whose
probe fails leaves its function free, with the reason; what it had taken by then is taken down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.client import ClientDriver
from nvcore.api.function import Function
from nvcore.api.offers import ClientOffer
from nvcore.gpu.clients import Attachment
from nvcore.gpu.threads import describe_error

if TYPE_CHECKING:
    from nvcore.gpu.life import Gpu
    from nvcore.host import Host

__all__ = ["attach_clients"]


def attach_clients(gpu: Gpu, host: Host) -> None:
    """Probe every client on every published function that is its own."""
    for function in gpu.functions:
        if not function.published or function.owner is not None:
            continue
        offers = [offer for offer in host.clients if function.kind in offer.functions]
        claims = [(offer, driver) for offer in offers if (driver := _matching(gpu, host, offer, function)) is not None]
        if len(claims) > 1:
            names = " and ".join(offer.name for offer, _ in claims)
            gpu.conflicts.append(f"clients {names} both claim {function.name}: none got it")
            gpu.publish("client", gpu.conflicts[-1], function=function.name, code="NVC-1005", action="select only one of them")
        elif claims:
            _attach(gpu, host, *claims[0], function)


def _matching(gpu: Gpu, host: Host, offer: ClientOffer, function: Function) -> ClientDriver | None:
    driver = host.open_driver(offer)
    try:
        return driver if driver is not None and driver.match(function) else None
    except Exception as error:  # isolation boundary: worker
        _failed(gpu, host, offer, function, error)
        return None


def _attach(gpu: Gpu, host: Host, offer: ClientOffer, driver: ClientDriver, function: Function) -> None:
    folder = host.state_dir / "clients" / offer.name
    folder.mkdir(parents=True, exist_ok=True)
    attachment = Attachment(gpu, offer, driver, function, folder)
    gpu.attachments.append(attachment)
    gpu.own(function, offer.name)
    try:
        attachment.probe(host.settings.call)
    except Exception as error:  # isolation boundary: worker
        attachment.hung = describe_error(error)[0]
        gpu.abandon(attachment, f"probe failed: {attachment.hung}")
        _failed(gpu, host, offer, function, error)
        return
    gpu.publish("client", f"{offer.name} drives {function.name}", function=function.name, owner=offer.name)


def _failed(gpu: Gpu, host: Host, offer: ClientOffer, function: Function, error: BaseException) -> None:
    cause, code, remedy = describe_error(error)
    host.blame(offer.name, cause)
    gpu.publish("client", f"{offer.name} failed on {function.name}: {cause}", owner=offer.name, code=code, action=remedy)
