"""Whose turn it is: functions one after another, and the channels of each one after another.

Owns the queue of channels that can go on. A guest with a hundred channels gets as many slices as one with a single channel. Runs under the
device's lock. Source: DESIGN 6 (a budget per VF).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from nvcore_softgpu.channel import Channel

__all__ = ["Turns"]


class Turns:
    """Channels in the order in which they run."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[int, deque[Channel]] = {}  # GFID (0: the physical function) to its channels; the first is next

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, channel: Channel) -> bool:
        return channel in self._lines.get(channel.state.gfid, ())

    def push(self, channel: Channel) -> None:
        """Behind the other channels of its function; a function that had none is the last."""
        self._lines.setdefault(channel.state.gfid, deque()).append(channel)

    def extend(self, channels: Iterable[Channel]) -> None:
        """Push each."""
        for channel in channels:
            self.push(channel)

    def pop(self) -> Channel:
        """Whose turn it is; its function becomes the last. KeyError when there is none."""
        gfid = next(iter(self._lines), -1)
        line = self._lines.pop(gfid)
        channel = line.popleft()
        if line:
            self._lines[gfid] = line
        return channel

    def drop(self, channel: Channel) -> None:
        """Take a channel out, if it is there."""
        gfid = channel.state.gfid
        line = self._lines.get(gfid)
        if line is not None and channel in line:
            line.remove(channel)
            if not line:
                del self._lines[gfid]

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()
