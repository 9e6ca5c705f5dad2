"""What the running firmware knows: one object that every function and control works on.

Owns the records behind objects (address spaces, channels, memory lists). Knows no message layout. All use is on the caller's thread under
the device's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from nvcore_softgpu.gsp.conventions import GPUS, GpuFacts
from nvcore_softgpu.gsp.layout import Layout
from nvcore_softgpu.gsp.objects import Node, Tree
from nvcore_softgpu.gsp.static_info import INTERNAL_CLIENT, INTERNAL_DEVICE, INTERNAL_SUBDEVICE
from nvcore_softgpu.gsp.versions import Version
from nvcore_softgpu.ports import Aperture, ChipFacts, EngineFacts, Environment

__all__ = ["AddressSpace", "Channel", "Group", "MemoryList", "State", "Tasks"]


class AddressSpace:
    """A vaspace object. external: the client owns the page directory; root: its address once set."""

    __slots__ = ("channels", "external", "root")

    def __init__(self, external: bool) -> None:
        """Without a page directory."""
        self.external = external
        self.root: int | None = None
        self.channels: list[Channel] = []

    def instances(self) -> tuple[int, ...]:
        """VRAM addresses of the instance blocks of its channels."""
        return tuple(channel.instance for channel in self.channels)


class Group:
    """A channel group: engine type and address space that its channels inherit."""

    __slots__ = ("engine_type", "space")

    def __init__(self, engine_type: int, space: AddressSpace | None) -> None:
        """engine_type: NV2080 numbering."""
        self.engine_type = engine_type
        self.space = space


class Channel:
    """One channel (`ports.ChannelState`)."""

    __slots__ = (
        "bound", "channel_class", "chid", "enabled", "engine_type", "entries", "gfid", "gpfifo", "instance", "objects", "runlist", "space",
        "stopped", "userd", "userd_aperture",
    )  # fmt: skip

    def __init__(self, chid: int, engine: EngineFacts, channel_class: int, space: AddressSpace | None) -> None:
        """Not bound, not running."""
        self.chid = chid
        self.runlist = engine.runlist
        self.engine_type = engine.engine_type
        self.channel_class = channel_class
        self.space = space
        self.gpfifo = self.entries = self.instance = self.userd = self.gfid = 0
        self.userd_aperture = Aperture.VRAM
        self.objects: dict[int, int] = {}
        self.bound = self.enabled = self.stopped = False


class MemoryList:
    """A list of pages that the driver registered: of system memory, or of VRAM."""

    __slots__ = ("system",)

    def __init__(self, system: bool) -> None:
        """Nothing is saved there: VRAM stays as it is over a suspend."""
        self.system = system


class Tasks(Protocol):
    """The vGPU tasks, as controls and the client's death use them."""

    def client_freed(self, client: int) -> None:
        """A root client went away."""
        ...


class State:
    """The firmware between start and unload."""

    __slots__ = (
        "channels", "chip", "env", "facts", "halt", "layout", "meta", "post_event", "registry", "registry_seen", "report",
        "scheduling_disabled", "suspend_prepared", "system_info", "tasks", "tree", "uuid", "version",
    )  # fmt: skip

    def __init__(
        self,
        env: Environment,
        chip: ChipFacts,
        version: Version,
        meta: Mapping[str, int],
        post_event: Callable[[int, bytes], None],
        halt: Callable[[str], None],
    ) -> None:
        """meta: the WPR meta; post_event(number, payload); halt(cause)."""
        self.env = env
        self.chip = chip
        self.version = version
        self.meta = dict(meta)
        self.facts: GpuFacts = GPUS[chip.name]
        self.layout = Layout(meta, env.memory.vram_size, env.bar_directories())
        self.report = env.violations.violation
        self.post_event = post_event
        self.halt = halt
        self.registry: dict[str, int | str | bytes] = {}
        self.registry_seen = False
        self.system_info: bytes | None = None
        self.channels: dict[tuple[int, int], Channel] = {}
        self.scheduling_disabled = False
        self.suspend_prepared = False
        self.uuid = b""
        self.tasks: Tasks | None = None
        self.tree = Tree(self._freed)
        self._internal_objects()

    def _internal_objects(self) -> None:
        self.tree.add_client(INTERNAL_CLIENT, 0)
        client = self.tree.clients[INTERNAL_CLIENT]
        device = self.tree.add(client.root, INTERNAL_DEVICE, 0x80, "device")
        self.tree.add(device, INTERNAL_SUBDEVICE, 0x2080, "subdevice")
        client.fixed = {INTERNAL_CLIENT, INTERNAL_DEVICE, INTERNAL_SUBDEVICE}

    @property
    def sriov_enabled(self) -> bool:
        """The registry asked for virtual functions."""
        return self.registry.get("RMSetSriovMode") == 1

    def engine(self, engine_type: int) -> EngineFacts | None:
        """The engine of that NV2080 type."""
        return next((engine for engine in self.chip.engines if engine.engine_type == engine_type), None)

    def runlist_engines(self, runlist: int) -> list[EngineFacts]:
        """Engines behind one runlist, in table order."""
        return [engine for engine in self.chip.engines if engine.runlist == runlist]

    def space(self, client: int, handle: int) -> AddressSpace | None:
        """An address space of a client by handle."""
        node = self.tree.find(client, handle)[1]
        return node.data if node is not None and isinstance(node.data, AddressSpace) else None

    def roots(self) -> list[int]:
        """Page directories that are set."""
        spaces = [node.data for node in self.tree.nodes("address space")]
        return sorted(space.root for space in spaces if isinstance(space, AddressSpace) and space.root is not None)

    def enable(self, channel: Channel, enabled: bool) -> None:
        """Schedule a channel or take it off."""
        channel.enabled = enabled
        self.env.channels.set_enabled(channel.runlist, channel.chid, enabled and not self.scheduling_disabled)

    def set_root(self, space: AddressSpace, address: int | None) -> None:
        """Set or unset the page directory of an address space."""
        space.root = address
        self.env.channels.set_page_directory(space, address)

    def _freed(self, node: Node) -> None:
        data = node.data
        if isinstance(data, Channel):
            if data.enabled:
                self.env.channels.set_enabled(data.runlist, data.chid, False)
            self.env.channels.remove(data.runlist, data.chid)
            del self.channels[data.runlist, data.chid]
            if data.space is not None:
                data.space.channels.remove(data)
        elif isinstance(data, AddressSpace):
            if data.channels:
                self.report("space-in-use", f"address space {node.handle:#x} freed with {len(data.channels)} channels in it")
                for channel in data.channels:
                    channel.space = None
                data.channels.clear()
            if data.root is not None:
                self.report("root-left-set", f"address space {node.handle:#x} freed with its page directory set")
            self.set_root(data, None)
        elif node.kind == "engine object" and node.parent is not None and isinstance(node.parent.data, Channel):
            node.parent.data.objects.pop(node.handle, None)
        elif node.kind == "client" and self.tasks is not None:
            self.tasks.client_freed(node.handle)
