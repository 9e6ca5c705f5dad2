"""Matching clients to the functions of a booted GPU.

Owns no state; runs on the life-cycle thread. Two clients that want one function are a reported conflict and neither gets it. A client whose
probe fails leaves its function free, with the reason; what it had taken by then is taken down.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nvcore.api.errors import NvcoreError
from nvcore.api.function import Function
from nvcore.api.offers import ClientOffer
from nvcore.gpu.clients import Attachment, Context
from nvcore.gpu.threads import describe_error

if TYPE_CHECKING:
    from nvcore.gpu.life import Gpu
    from nvcore.hostlib.parts import Parts

__all__ = ["attach_clients"]


def attach_clients(gpu: Gpu, parts: Parts) -> None:
    """Probe every client on every published function that is its own."""
    for function in gpu.functions:
        if not function.published or function.owner is not None:
            continue
        claims = [offer for offer in parts.clients if function.kind in offer.functions and _matches(gpu, parts, offer, function)]
        if len(claims) > 1:
            names = " and ".join(offer.name for offer in claims)
            gpu.conflicts.append(f"clients {names} both claim {function.name}: none got it")
            gpu.events.publish(
                "client", gpu.conflicts[-1], gpu=gpu.name, function=function.name, code="NVC-1005", action="select only one of them"
            )
        elif claims:
            _attach(gpu, parts, claims[0], function)


def _matches(gpu: Gpu, parts: Parts, offer: ClientOffer, function: Function) -> bool:
    driver = parts.client_driver(offer)
    if driver is None:
        return False
    try:
        return driver.match(function)
    except Exception as error:  # isolation boundary: worker
        _failed(gpu, parts, offer, function, error)
        return False


def _attach(gpu: Gpu, parts: Parts, offer: ClientOffer, function: Function) -> None:
    driver = parts.client_driver(offer)
    assert driver is not None  # it matched

    def raised(attachment: Attachment, what: str, error: BaseException) -> None:
        _raised(gpu, attachment, what, error)

    attachment = Attachment(offer.name, offer.plugin, driver, function, gpu.clock, gpu.calls, raised)
    context = Context(gpu, attachment, function, parts.settings.clients.get(offer.name), _folder(parts, offer.name))
    gpu.attachments.append(attachment)
    gpu.own(function, offer.name)
    try:
        attachment.probe(context, parts.settings.call)
    except Exception as error:  # isolation boundary: worker
        attachment.hung = describe_error(error)[0]
        gpu.abandon(attachment, f"probe failed: {attachment.hung}")
        _failed(gpu, parts, offer, function, error)
        return
    gpu.events.publish("client", f"{offer.name} drives {function.name}", gpu=gpu.name, function=function.name, owner=offer.name)


def _folder(parts: Parts, name: str) -> Path:
    folder = parts.state_dir / "clients" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _failed(gpu: Gpu, parts: Parts, offer: ClientOffer, function: Function, error: BaseException) -> None:
    cause, code, remedy = describe_error(error)
    parts.problems[offer.name] = cause
    text = f"{offer.name} failed on {function.name}: {cause}"
    gpu.events.publish("client", text, gpu=gpu.name, owner=offer.name, code=code, action=remedy)


def _raised(gpu: Gpu, attachment: Attachment, what: str, error: BaseException) -> None:
    """A callback on the delivery thread raised: its own fault, told and left at that; quiesce decides whether it is still at work."""
    cause = describe_error(error)[0]
    code = error.code if isinstance(error, NvcoreError) else None
    gpu.events.publish("client", f"{what} raised: {cause}", gpu=gpu.name, owner=attachment.name, code=code)
