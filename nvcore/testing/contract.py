"""What all contract checks share: the clauses by name, the error that names one, and the comparison of a class with its Protocol.

Owns the table of clauses. The test's thread. The checks themselves are in `contract_client`, `contract_backend` and `contract_module`;
authors import `nvcore.testing.contracts`.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import nvcore
from nvcore.api.marks import mark_of

__all__ = [
    "CLAUSES", "BrokenContract", "Leftovers", "broken", "calling", "compare", "descriptors", "more_descriptors", "raised_by", "untouched",
    "waits_in",
]  # fmt: skip

CLAUSES: Final[dict[str, str]] = {
    "client-offer": "a client's offer has a name, a summary and functions of known kinds",
    "client-needs": "needs() is pure and is enough for the functions that the client claims",
    "client-open": "open() gives a driver with a name, and touches nothing",
    "client-match": "match() is pure and says yes to what the offer claims",
    "client-marks": "every method carries the mark that the contract gives it",
    "client-signature": "every method takes the arguments of the contract, and every attribute can be read",
    "client-probe": "probe() takes the function and gives a client, on every GPU",
    "client-status": "status() answers at once, with a record that JSON can carry",
    "client-on-fault": "on_fault() neither waits nor allocates nor raises",
    "client-fences": "when on_fault() has returned, none of the fences that this client had published is open",
    "client-quiesce": "quiesce() returns before its deadline and does not raise",
    "client-resume": "after resume() the client works again, with memory kept or lost",
    "client-remove": "remove() does not raise and gives everything back",
    "client-again": "a function that was left can be taken again",
    "client-lost": "a client leaves a GPU that is lost without raising",
    "client-locks": "no rule of the lock validator is broken",
    "backend-offer": "a backend's offer has a name, a summary, chips of the table and versions",
    "backend-open": "open() gives a backend with a name, and touches nothing",
    "backend-marks": "every method of backend, session, tenant and families carries the mark that the contract gives it",
    "backend-signature": "every method takes the arguments of the contract, and every attribute can be read",
    "backend-supports": "supports() lists images of the chip it is asked for, and none for a chip that is not claimed",
    "backend-boots": "open(context) starts the firmware, of the version that is asked for, tells each stage and reports what it told",
    "backend-saves": "each start saves what a later process needs to take the firmware down before the firmware runs, or starts nothing",
    "backend-families": "families and family() agree, with name and version; inventory is among them, an unknown name gives None",
    "backend-inventory": "the inventory is plausible, and the same each time it is asked for",
    "backend-objects": "objects that were made are counted, and a closed tenant takes its objects along; closing it again does nothing",
    "backend-receive": "receive() returns how many messages it took and never raises; `waiting` counts the calls that it has to answer",
    "backend-dead": "after declare_dead() every call, also one that waits, fails at once with the first cause",
    "backend-unload": "unload() does not raise, works from anywhere and is idempotent",
    "backend-again": "after an unload the firmware can be started again",
    "backend-refuses": "a start that cannot be raises BootError with a report that has the cause",
    "backend-leftover": "a firmware that runs already is refused, and taken down by recover() with the saved state: then a start works",
    "backend-gone": "a device that leaves raises nothing but declared errors",
    "backend-leaves": "after an unload no thread, no descriptor and no host memory is left",
    "backend-locks": "no rule of the lock validator is broken",
    "module-hooks": "every hook has a known name, carries the marker, is no wrapper and takes exactly (host)",
    "module-offers": "a hook returns offers of its kind, each with a name of its own, a summary and what a host can call",
    "module-pure": "hooks answer the same each time and touch nothing",
    "module-imports": "a plugin's files compile, import the public rooms of nvcore only, and bring no asyncio and no numpy into a daemon",
    "module-config": "a plugin's one configuration section is an attrs class with a default for every key, that makes a record of these",
    "module-clients": "a plugin's clients come up on two fake GPUs, where its panels, checks and metrics are looked at",
    "module-panel": "a panel has a schema, columns and a place; its rows are a list of JSON objects that have its columns",
    "module-check": "a doctor check returns findings of a known severity, with a text",
    "module-metric": "a metric gives numbers, a counter none below 0, each with a value for every label that is declared, and no two alike",
    "module-interface": "an interface has a name of its own, which its text says; its handler takes a call of each of its methods",
}
"""Every clause that is checked, by name."""


class BrokenContract(AssertionError):
    """A plugin broke a clause. `clause`: its name in CLAUSES; the text says it, and what was seen."""

    def __init__(self, clause: str, who: str, seen: str) -> None:
        super().__init__(f"{who} breaks {clause}: {CLAUSES[clause]}; seen: {seen}")
        self.clause = clause


def broken(clause: str, who: str, seen: object) -> NoReturn:
    """Raise BrokenContract."""
    raise BrokenContract(clause, who, str(seen))


@contextmanager
def calling(clause: str, who: str, what: str) -> Iterator[None]:
    """What the block raises breaks `clause`."""
    try:
        yield
    except BrokenContract:
        raise
    except (Exception, SystemExit) as error:  # isolation boundary: hook
        raise BrokenContract(clause, who, f"{what} raised {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where in the plugin an error comes from: file and line of the innermost frame that is neither nvcore's nor Python's; of a syntax
    error those that it names."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    mine = [f"{path}:{line}" for path, line in frames if not _foreign(path)]
    return f" at {mine[-1]}" if mine else ""


def waits_in(name: str, thread: threading.Thread) -> str:
    """Where a thread is in a function of a plugin with this name, as in " in on_fault at pad.py:17"; empty where it is in none."""
    found, frame = "", sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == name and not _foreign(frame.f_code.co_filename):
            found = f" in {name} at {frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return found


def _foreign(path: str) -> bool:
    """Whether a file is nvcore's or Python's own."""
    host, library = str(Path(nvcore.__file__).parent), sysconfig.get_path("stdlib")
    return path.startswith(("<frozen", f"{host}{os.sep}")) or (path.startswith(f"{library}{os.sep}") and "site-packages" not in path)


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """What a call of a plugin raises, None when it returns."""
    try:
        call()
    except (Exception, SystemExit) as error:  # isolation boundary: hook
        return error
    return None


def _promised(contract: type) -> dict[str, Any]:
    """The public methods of a Protocol and of the Protocols that it extends."""
    found: dict[str, Any] = {}
    for cls in reversed(contract.__mro__):
        found.update({name: value for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")})
    return found


def _attributes(contract: type) -> list[str]:
    """The public attributes and properties of a Protocol and of those that it extends."""
    found: dict[str, None] = {}
    for cls in reversed(contract.__mro__):
        found |= dict.fromkeys(
            [*vars(cls).get("__annotations__", {}), *(name for name, value in vars(cls).items() if isinstance(value, property))]
        )
    return [name for name in found if not name.startswith("_")]


def compare(target: object, contract: type, who: str, *, marks: str, signature: str) -> None:
    """Hold `target` against a Protocol: its methods exist, take the arguments and carry the marks; its attributes can be read."""
    for name, method in _promised(contract).items():
        mine = getattr(target, name, None)
        if not callable(mine):
            broken(signature, who, f"{type(target).__name__} has no method {name}")
        given = list(inspect.signature(method).parameters.values())[1:]
        named = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
        places = [None for one in given if one.kind is one.POSITIONAL_OR_KEYWORD]
        try:
            inspect.signature(mine).bind(*places, **named)
        except TypeError as error:
            broken(signature, who, f"{type(target).__name__}.{name}{inspect.signature(mine)}: {error}")
        except ValueError:  # a method that is not Python's says nothing about its arguments
            continue
        wanted, seen = mark_of(method), mark_of(mine)
        if wanted != seen:
            broken(marks, who, f"{type(target).__name__}.{name} is marked {seen or 'nothing'}, the contract says {wanted or 'nothing'}")
    for name in _attributes(contract):
        with calling(signature, who, f"reading {name} of {type(target).__name__}"):
            getattr(target, name)


class Leftovers:
    """Threads and descriptors that were not there when this was made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._descriptors = descriptors()

    def find(self, grace: float = 1.0) -> list[str]:
        """What is left of threads after `grace` real seconds, and of descriptors once garbage is gone."""
        end = time.monotonic() + grace
        threads = [thread for thread in threading.enumerate() if thread not in self._threads]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        left = [f"thread {thread.name}" for thread in threads if thread.is_alive()]
        return left + [f"descriptor of {path}" for path in more_descriptors(self._descriptors).values()]


def more_descriptors(before: dict[int, str]) -> dict[int, str]:
    """Descriptors, with what they are of, that were not there before, once garbage is gone."""
    if len(os.listdir("/proc/self/fd")) - 1 <= len(before):
        return {}
    gc.collect()  # takes its time, so only where there is something to collect
    now = descriptors()
    if len(now) <= len(before):
        return {}
    paths = list(now.values())
    new = {fd: path for fd, path in now.items() if before.get(fd) != path}
    return {fd: path for fd, path in new.items() if paths.count(path) > 1 or not _packaged(path)}


def _packaged(path: str) -> bool:
    """Whether a file lies in an installed package: one descriptor of it, kept as long as the process, is a cache; a second is a leak."""
    return any(path.startswith(f"{folder}/") for folder in sys.path if folder)


def descriptors() -> dict[int, str]:
    """The descriptors of this process, with what they are of."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def untouched(clause: str, who: str, what: str, call: Callable[[], Any]) -> Any:
    """The answer of a call that must touch nothing: no thread, no descriptor. Raises BrokenContract, also for what the call raises."""
    before = Leftovers()
    with calling(clause, who, what):
        answer = call()
    left = before.find(0.0)
    if left:
        broken(clause, who, f"{what} left {', '.join(left)}")
    return answer
