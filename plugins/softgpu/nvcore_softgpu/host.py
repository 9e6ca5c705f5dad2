"""The host engine: which channels exist, which may run, and whose turn it is.

Owns the channels of one GPU, the run queue, and the queue of channels that wait at a semaphore. Implements `ports.ChannelHost`. A
doorbell runs channels at once (`eager`) or leaves them to `turn`, which does at most one slice of 64 KiB. Runs under the device's lock.
Source: device-model.md 9.1, 15.9; DESIGN 6 (slices).
"""

from __future__ import annotations

from typing import Final, Protocol

from nvcore_softgpu.channel import BLOCKED, Channel, ChannelError
from nvcore_softgpu.chips import NO_VECTOR, Chip
from nvcore_softgpu.copy import PIECE
from nvcore_softgpu.memory import PhysicalMemory
from nvcore_softgpu.mmu import Mmu, TranslationFault
from nvcore_softgpu.ports import AddressSpaceOwner, Aperture, ChannelState, Faults, Violations
from nvcore_softgpu.ticker import ModelTicker
from nvcore_softgpu.turns import Turns
from nvcore_softgpu.vm import VirtualMemory
from nvcore_softgpu.windows import Region, instance_root

__all__ = ["Host"]

SLICE: Final = 1 << 16
"""Bytes of work in one slice, at most: copied, or counted for what costs as much (`channel`)."""
BURST: Final = 1 << 10
"""Slices that one doorbell executes before others get a turn: 64 MiB, some 20 ms. What is left goes on in the ticker's."""
RETRY: Final = 0.001
"""Seconds until a semaphore that nobody of ours released is looked at again: its value may come from the host's memory."""


class Gpu(Protocol):
    """What the host engine sees of the model."""

    @property
    def chip(self) -> Chip:
        """The row."""
        ...

    @property
    def memory(self) -> PhysicalMemory:
        """Physical memory."""
        ...

    @property
    def mmu(self) -> Mmu:
        """The walker."""
        ...

    @property
    def violations(self) -> Violations:
        """The journal."""
        ...

    @property
    def faults(self) -> Faults:
        """Armed faults."""
        ...

    @property
    def ticker(self) -> ModelTicker:
        """Time."""
        ...

    def raise_vector(self, vector: int) -> None:
        """An interrupt of an engine."""
        ...

    def nanoseconds(self) -> int:
        """The GPU's time."""
        ...

    def channel_fault(self, runlist: int, chid: int, cause: str, address: int | None) -> None:
        """Tell the GSP."""
        ...


class Host:
    """Channels and their turns. eager: a doorbell executes before it returns, one burst at most. slices: how many were done."""

    def __init__(self, gpu: Gpu, protected: Region) -> None:
        self._gpu = gpu
        self._protected = protected
        self.eager = True
        self.slices = 0
        self.channels: dict[tuple[int, int], Channel] = {}
        self._ready = Turns()
        self._blocked: list[Channel] = []
        self._spaces: dict[int, tuple[AddressSpaceOwner, int | None]] = {}
        self._retrying = False
        self._look = 0.0  # when the blocked are tried again, where nobody is eager
        self._stepping = False
        self._high = 0xFF if gpu.chip.tables == 2 else 0x1FFFFFF

    # --- ports.ChannelHost --------------------------------------------------------------------------------------------------------

    def add(self, channel: ChannelState) -> None:
        """A channel was allocated."""
        gpu = self._gpu
        gpu.ticker.prepare()
        vector = next((engine.nonstall for engine in gpu.chip.engines if engine.engine_type == channel.engine_type), NO_VECTOR)

        def interrupt() -> None:
            if vector != NO_VECTOR:
                gpu.raise_vector(vector)

        self.channels[channel.runlist, channel.chid] = Channel(
            channel, gpu.memory, gpu.violations, self._high, gpu.chip.copy_class, interrupt, gpu.nanoseconds
        )

    def set_enabled(self, runlist: int, chid: int, enabled: bool) -> None:
        """Schedule a channel or stop it; a stopped one is where it was when it is scheduled again."""
        channel = self.channels.get((runlist, chid))
        if channel is None:
            return
        channel.enabled = enabled
        if not enabled:
            self._drop(channel)
        elif channel.work is not None or channel.pending():
            self._queue(channel)

    def remove(self, runlist: int, chid: int) -> None:
        """Freed."""
        channel = self.channels.pop((runlist, chid), None)
        if channel is not None:
            channel.enabled = False
            channel.work = None
            self._drop(channel)

    def set_page_directory(self, instance_owner: object, address: int | None) -> None:
        """An address space got a root, or lost it."""
        owner: AddressSpaceOwner = instance_owner  # type: ignore[assignment]
        self._spaces[id(owner)] = (owner, address)
        if address is None:
            living = owner.instances()
            for channel in self.channels.values():
                if channel.state.instance in living:
                    channel.work = None  # what was begun is begun again, and faults
            if not living:
                del self._spaces[id(owner)]

    def engine_object(self, runlist: int, chid: int, class_id: int) -> None:
        """An engine object was allocated under a channel."""
        channel = self.channels.get((runlist, chid))
        if channel is not None:
            channel.objects.add(class_id)

    def reset(self) -> None:
        """Forget every channel."""
        self.channels.clear()
        self._ready.clear()
        self._blocked.clear()
        self._spaces.clear()

    # --- turns --------------------------------------------------------------------------------------------------------------------

    def doorbell(self, token: int) -> None:
        """A work token was written: runlist << 16 | channel id."""
        key = (token >> 16 & 0x7F, token & 0xFFF)
        channel = self.channels.get(key)
        if channel is None:
            self._gpu.violations.violation("doorbell-without-channel", f"token {token:#x}")
            return
        if channel.dead:
            return
        if channel.enabled:
            self._queue(channel)
        if self.eager:
            self.drain()

    def drain(self) -> None:
        """Run until nothing can go on, or for one burst."""
        if self._stepping:
            return
        for _ in range(BURST):
            if not self.step():
                return
        self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._gpu.ticker.call_at(self._gpu.ticker.now() + RETRY, self._retry)

    def step(self) -> bool:
        """One slice of one channel; whether more can be done now."""
        if self._stepping:
            return False
        if not self._ready:
            return False
        channel = self._ready.pop()
        self._stepping = True
        try:
            self._slice(channel)
        finally:
            self._stepping = False
        self.slices += 1
        return bool(self._ready)

    def turn(self) -> float | None:
        """One slice of one channel, for a transport that looks at its sockets between two. Seconds until the next: 0 when a channel can go
        on now, more when one waits at a semaphore, None when there is nothing to do."""
        if not self._ready:
            if not self._blocked:
                return None
            wait = self._look - self._gpu.ticker.now()
            if wait > 0:
                return wait
            self._wake()
        if self.step():
            return 0.0
        return RETRY if self._blocked else None

    def _slice(self, channel: Channel) -> None:
        state = channel.state
        done = 0
        try:
            if channel.work is None:
                channel.work = channel.run(self._space(channel))
            for amount in channel.work:
                if amount == BLOCKED:
                    self._block(channel)
                    return
                done += amount
                if done > SLICE - PIECE:  # the next piece might not fit any more
                    self._ready.push(channel)
                    self._wake()
                    return
        except TranslationFault as fault:
            self._stop(channel, "mmu-fault", fault.address)
            return
        except ChannelError as problem:
            self._gpu.violations.violation("pushbuffer", f"channel {state.chid} of runlist {state.runlist}: {problem.why}")
            self._stop(channel, "pbdma", None)
            return
        channel.work = None
        self._wake()

    def _space(self, channel: Channel) -> VirtualMemory:
        """The address space of a channel, read where hardware reads it: the instance block."""
        gpu, state = self._gpu, channel.state
        if gpu.faults.take("mmu-fault") is not None:
            raise TranslationFault(state.gpfifo, "injected fault")
        root = instance_root(gpu.memory, state.instance)
        for owner, address in self._spaces.values():
            if state.instance in owner.instances():
                if address is None:
                    raise TranslationFault(state.gpfifo, "the page directory was unset")
                if root is not None and root[1] != address:
                    gpu.violations.violation("page-directory-mismatch", f"instance block {root[1]:#x}, SET_PAGE_DIRECTORY {address:#x}")
                root = root or (Aperture.VRAM, address)
        if root is None:
            raise TranslationFault(state.gpfifo, "no page directory")
        return VirtualMemory(gpu.memory, gpu.mmu, root, self._protected, gpu.violations)

    def _stop(self, channel: Channel, cause: str, address: int | None) -> None:
        channel.dead = True
        channel.work = None
        self._gpu.channel_fault(channel.state.runlist, channel.state.chid, cause, address)

    def _queue(self, channel: Channel) -> None:
        if channel not in self._ready and channel not in self._blocked and not channel.dead:
            self._ready.push(channel)

    def _drop(self, channel: Channel) -> None:
        self._ready.drop(channel)
        if channel in self._blocked:
            self._blocked.remove(channel)

    def _block(self, channel: Channel) -> None:
        """Wait at a semaphore: look again when another channel moved, and every millisecond for values written by the host."""
        self._blocked.append(channel)
        if not self.eager:
            self._look = self._gpu.ticker.now() + RETRY
        else:
            self._go_on_later()

    def _retry(self) -> None:
        self._retrying = False
        self._wake()
        if self.eager:
            self.drain()

    def _wake(self) -> None:
        self._ready.extend(channel for channel in self._blocked if channel.enabled)
        self._blocked.clear()

    def waiting(self) -> int:
        """Channels that wait at a semaphore."""
        return len(self._blocked)
