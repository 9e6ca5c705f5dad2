"""Golden transcripts: what crosses `nvcore.api` between the core and a firmware session for one fixed script, as JSON lines.

Owns the recording proxy, the script and the comparison. Handles, addresses and times become labels in the order first seen; words for
people become "text". Test code only; one thread. A transcript is data about the contract, not about a firmware: two versions of one chip
must give the same lines except at the JSON paths that the version's manifest names.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from nvcore.api.device import Device, DmaBuffer
from nvcore.api.events import FirmwareEvent
from nvcore.api.families import ChannelSpec
from nvcore.api.firmware import FirmwareBackend, FirmwareSession, OpenContext

__all__ = ["Recorder", "differences", "record_script"]

_ADDRESSES: Final = frozenset({"address", "bar1_directory", "fault_buffer", "instance", "ring_address", "start", "userd"})
_WORDS: Final = frozenset({"detail", "location", "looked_for", "reason", "remedy", "text", "uuid"})
_PAGE: Final = 4096  # below it a number of that name is a number: an engine's instance
_LEFT_OUT: Final = frozenset({"logs", "registers"})
_OBJECT: Final = "{…}"
_ABSENT: Final = "(absent)"  # what no value of a transcript is: JSON's null is one
_PLAIN: Final = (str, bool, type(None))


class Recorder:
    """Collects lines. Each is {"call", "arguments", "answer" or "error"} or {"event", "record"}."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._labels: dict[tuple[str, object], str] = {}
        self._counts: dict[str, int] = {}
        self._kept: list[object] = []  # labels go by identity, so what was labelled must stay alive

    def label(self, kind: str, value: object) -> str:
        """The label of a value: "kind:1" for the first one of its kind that is not the same as one seen before."""
        key = (kind, value if isinstance(value, int) else id(value))
        found = self._labels.get(key)
        if found is None:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
            found = self._labels[key] = f"{kind}:{number}"
            self._kept.append(value)
        return found

    def plain(self, value: object, name: str = "") -> Any:
        """A value as it stands in a line."""
        if name in _WORDS and value is not None:
            return "text"
        if name == "seconds":
            return "time"
        if name in _ADDRESSES and isinstance(value, int) and value >= _PAGE:
            return self.label("address", value)
        if isinstance(value, (*_PLAIN, int)):
            return value
        if attrs.has(type(value)):
            fields: Any = attrs.fields_dict(type(value))  # type: ignore[arg-type]
            return {key: self.plain(getattr(value, key), key) for key in fields if key not in _LEFT_OUT}
        if isinstance(value, Mapping):
            return {str(key): self.plain(item, str(key)) for key, item in value.items()}
        if isinstance(value, (frozenset, set)):
            return sorted(self.plain(item) for item in value)
        if isinstance(value, (tuple, list)):
            return [self.plain(item) for item in value]
        return self.label(type(value).__name__.lower().removeprefix("gsp"), value)

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call and record it."""
        line: dict[str, Any] = {"call": name, "arguments": [self.plain(arg) for arg in args]}
        if kwargs:
            line["named"] = {key: self.plain(value, key) for key, value in kwargs.items()}
        self.lines.append(line)
        try:
            answer = function(*args, **kwargs)
        except BaseException as error:
            line["error"] = type(error).__name__
            raise
        line["answer"] = self.plain(answer, name.rpartition(".")[2])
        return answer

    def event(self, event: FirmwareEvent) -> None:
        """Record an event."""
        self.lines.append({"event": type(event).__name__, "record": self.plain(event)})

    def text(self) -> str:
        """All lines, one JSON object each."""
        return "".join(json.dumps(line, sort_keys=True) + "\n" for line in self.lines)


class _Receiver:
    """A receiver thread that looks at the session while a call is under way, and rests in between, so that lines keep their order."""

    def __init__(self, session: FirmwareSession) -> None:
        self._session = session
        self._busy = threading.Event()
        self._stop = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="transcript receiver", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            self._busy.wait(0.1)
            with self._lock:
                if self._busy.is_set():
                    self._session.receive()
            time.sleep(0.0002)

    def __enter__(self) -> None:
        self._busy.set()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._busy.clear()

    def close(self) -> None:
        """End the thread."""
        self._stop = True
        self._busy.set()
        self._thread.join()


def record_script(
    backend: FirmwareBackend, context: OpenContext, device: Device, cause_fault: Callable[[int, int], None], *, entries: int
) -> Recorder:
    """Run the script and record it: open, inventory, allocate, channel, fault, free, unload. No vGPUs.

    cause_fault(token, channel): makes the device stop the channel with an MMU fault. entries: of a root directory on this chip. The
    script has a receiver thread of its own.
    """
    recorder = Recorder()
    opened = attrs.evolve(context, deliver=recorder.event)
    session: FirmwareSession = backend.open(opened)
    stages = [{"name": stage.name, "outcome": stage.outcome} for stage in session.report.stages]
    recorder.lines.append({"call": "open", "answer": {"chip": session.report.chip, "kind": session.image.kind, "stages": stages}})
    recorder.lines.append({"call": "families", "answer": dict(session.families)})
    receiver = _Receiver(session)

    def call(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with receiver:
            return recorder.call(name, function, *args, **kwargs)

    buffers: list[DmaBuffer] = []
    try:
        inventory = session.family("inventory")
        memory: Any = session.family("memory")
        channels: Any = session.family("channel")
        call("inventory.read", getattr(inventory, "read"))  # noqa: B009
        tenant = call("open_tenant", session.open_tenant, "transcript")
        space = call("memory.create_space", memory.create_space, tenant)
        call("memory.set_page_directory", memory.set_page_directory, space, 0x400000, entries=entries)
        size = call("channel.fault_buffer_size", channels.fault_buffer_size)
        buffers.append(device.allocate_dma(size, label="transcript"))
        spec = ChannelSpec("COPY0", 8, 0x100000, 1024, 0x500000, 0x501000, buffers[0].bus_address(0), size)
        channel = call("channel.create", channels.create, space, spec)
        call("channel.create_engine_object", channels.create_engine_object, channel)
        call("channel.enable", channels.enable, channel)
        call("objects", session.objects)
        cause_fault(channel.token, channel.channel)
        session.receive()
        call("channel.disable", channels.disable, channel)
        call("channel.destroy", channels.destroy, channel)
        call("memory.unset_page_directory", memory.unset_page_directory, space)
        call("memory.free_space", memory.free_space, space)
        call("tenant.close", tenant.close)
        call("objects", session.objects)
        receiver.close()
        unloaded = session.unload()
        stages = [{"name": stage.name, "outcome": stage.outcome} for stage in unloaded.stages]
        recorder.lines.append(
            {"call": "unload", "answer": {"clean": unloaded.clean, "needs_reset": unloaded.needs_reset, "stages": stages}}
        )
    finally:
        receiver.close()
        for buffer in buffers:
            buffer.close()
    return recorder


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield path, _OBJECT  # an empty one is one, too
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"{path}.length", len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def differences(one: Recorder, two: Recorder, allowed: Iterable[str] = ()) -> list[str]:
    """JSON paths with both values where two transcripts differ, without the allowed ones. A path begins at `$`; "[*]" allows every
    index."""
    import re

    patterns = [re.compile(re.escape(path).replace(r"\[\*\]", r"\[\d+\]") + r"(\..*|\[.*)?") for path in allowed]
    left, right = dict(_leaves(one.lines, "$")), dict(_leaves(two.lines, "$"))
    found = []
    for path in sorted(left.keys() | right.keys()):
        one_value, two_value = left.get(path, _ABSENT), right.get(path, _ABSENT)
        if one_value != two_value and not any(pattern.fullmatch(path) for pattern in patterns):
            found.append(f"{path}: {one_value!r} / {two_value!r}")
    return found
