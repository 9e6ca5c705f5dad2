"""The steps of a boot, each a function: which backend, which needs, open the session, read the inventory, name the functions.

Owns no state and no thread; runs on the life-cycle thread of one GPU. Every step raises a typed error with cause and remedy; `life` turns
it into a state. Decides nothing about firmware: images and order are the backend's. Source: DESIGN "Life of a GPU"; field case F01 (a
firmware left running).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from nvcore.api.client import Function, FunctionKind
from nvcore.api.errors import BootError, ConflictError, FirmwareRefused, NotFoundError, NotSupportedError, PluginError, UsageError
from nvcore.api.families import InventoryFamily
from nvcore.api.firmware import FirmwareBackend, FirmwareSession, OpenContext
from nvcore.api.identity import ChipId, GpuIdentity
from nvcore.api.inventory import Inventory
from nvcore.api.needs import BootNeeds, merge_needs
from nvcore.api.offers import ClientOffer, FirmwareOffer
from nvcore.hw.plausible import implausible


def choose_backend(chip: ChipId, offers: Sequence[FirmwareOffer], wanted: str | None) -> FirmwareOffer:
    """The one backend that claims the chip; wanted: its name, or its plugin's. Raises ConflictError naming both when two do,
    NotSupportedError when none does, NotFoundError when the wanted one is not there."""
    claims = [offer for offer in offers if chip.name in offer.chips]
    chosen = [offer for offer in claims if wanted in (None, offer.name, offer.plugin)]
    if len(chosen) == 1:
        return chosen[0]
    names = [f"{offer.name} (plugin {offer.plugin or offer.name})" for offer in chosen or claims]
    if chosen:
        what = f"two firmware backends claim {chip.name}: {' and '.join(names)}"
        remedy = "select only one of the plugins (-p no:NAME), or name one for this GPU in the configuration"
        raise ConflictError(what, expected="one backend a chip", remedy=remedy)
    if wanted is not None:
        raise NotFoundError(f"no backend {wanted!r} that drives {chip.name}", expected=", ".join(names) or "any", seen=wanted)
    known = ", ".join(sorted({name for offer in offers for name in offer.chips})) or "a firmware plugin"
    remedy = "install a plugin of family firmware that does (see: nvcore plugins list)"
    raise NotSupportedError(f"no firmware backend drives {chip.name}", expected=known, seen=chip.name, remedy=remedy)


def needs_of(identity: GpuIdentity, offers: Sequence[ClientOffer]) -> BootNeeds:
    """What all clients need of this GPU before it boots. Raises ConflictError naming both, PluginError naming the client whose `needs`
    broke."""

    def ask(offer: ClientOffer) -> BootNeeds:
        try:
            return offer.needs(identity)
        except BaseException as error:  # isolation boundary: hook
            raise PluginError(f"client {offer.name} cannot say what it needs", seen=f"{type(error).__name__}: {error}") from error

    return merge_needs((offer.name, ask(offer)) for offer in offers)


def take_down_leftover(backend: FirmwareBackend, context: OpenContext, reset: Callable[[], None]) -> str | None:
    """Run the saved unload of an earlier boot of ours, in this process or one before, before anything else touches the GPU (F01). A
    sentence for the log, None when nothing was saved. One of ours that it cannot take down is reset away; one that is not ours is left
    alone, for the open to refuse."""
    if context.saved is None:
        return None
    report = backend.recover(context)
    if report.clean and all(stage.outcome == "skipped" for stage in report.stages):
        return "an earlier boot left the record of a firmware; none is up"
    if report.clean and not report.needs_reset:
        return "a firmware that an earlier boot left was taken down"
    if not report.needs_reset:
        return f"a firmware is running that no earlier boot of ours left ({report.cause or 'no cause given'}); it was not touched"
    reset()
    return f"a firmware that an earlier boot left did not unload ({report.cause or 'no cause given'}); the device was reset"


def read_inventory(session: FirmwareSession) -> Inventory:
    """The inventory of a session just opened, checked where the core relies on it. Raises BootError."""
    if (family := session.family("inventory")) is None:
        raise BootError("the firmware has no inventory family", report=session.report, remedy="report this to the backend's author")
    inventory = cast(InventoryFamily, family).read()
    if wrong := implausible(inventory):
        raise FirmwareRefused("the firmware's inventory cannot be true", seen=wrong, remedy="retry; then report it with nvcore dump")
    return inventory


def same_resources(old: Inventory, new: Inventory) -> None:
    """After a restart grants keep their ranges: the new firmware must leave at least the same. Raises UsageError naming the difference."""
    usable = [region.range for region in new.regions if region.usable]
    for region in old.regions:
        if region.usable and not any(other.contains(region.range) for other in usable):
            expected = f"[{region.range.start:#x}, {region.range.end:#x}) usable"
            seen = ", ".join(f"[{other.start:#x}, {other.end:#x})" for other in usable)
            raise UsageError("the restarted firmware left other memory than before", expected=expected, seen=seen)
    for what in ("first_channel", "channels", "vmmu_segment", "page_tables"):
        if getattr(old, what) != getattr(new, what):
            raise UsageError(f"the restarted firmware differs in {what}", expected=getattr(old, what), seen=getattr(new, what))


def functions_of(
    identity: GpuIdentity, inventory: Inventory, families: Mapping[str, int], needs: BootNeeds, asked: Sequence[ClientOffer]
) -> tuple[Function, ...]:
    """What the GPU offers, with the reason and the remedy for what it does not. asked: the clients whose needs made `needs`; where one for
    a kind of function was asked and needs nothing, no reset changes that."""
    vgpu, missing = inventory.vgpu, [name for name in ("memory", "channel") if name not in families]
    again = f"reset the GPU with the client selected: nvcore gpus reset {identity.address}"
    kinds = {kind for offer in asked for kind in offer.functions}
    headless = None if needs.display or "display" in kinds else again
    refused: dict[FunctionKind, tuple[tuple[bool, str, str | None], ...]] = {
        "vgpu": (
            (not needs.vgpu_host and "vgpu" in kinds, f"no selected client has use for vGPUs of {identity.chip.name}", None),
            (not needs.vgpu_host, "the GPU was not booted as a vGPU host: no client asked for it before the boot", again),
            (not vgpu.host, vgpu.reason or "the firmware runs, but not as a vGPU host", "see: nvcore firmware list"),
            ("vgpu" not in families, "the firmware has no family vgpu", "use a firmware version that has it (see: nvcore firmware list)"),
            (vgpu.functions == 0, "the GPU offers no virtual functions", "enable SR-IOV in the platform's firmware"),
        ),
        "graphics": ((bool(missing), f"the firmware has no family {' and '.join(missing)}", "use a backend that has it"),),
        "display": (
            (not inventory.heads, "the chip has no heads", headless),
            ("display" not in families, "the firmware has no family display", headless),
            (not needs.display, "no client asked for heads before the boot", headless),
        ),
    }  # fmt: skip
    first = {kind: next(((why, remedy) for holds, why, remedy in rows if holds), (None, None)) for kind, rows in refused.items()}
    return tuple(Function(f"{identity.address}/{kind}", kind, identity, why is None, why, remedy) for kind, (why, remedy) in first.items())
