"""The pytest plugin: the lock validator on in every test, and every test checked for what it left behind.

Sets `NVCORE_LOCKDEP=1` (unless the environment says otherwise) before anything of nvcore is imported; then fails a test that broke a
lock rule unseen, or left a held lock, a published fence, a live nvcore thread or descriptors. `@pytest.mark.nvcore_leaks(reason)`
exempts a test from the last two. Installed as the pytest entry point `nvcore`; without it, `-p nvcore.testing.pytest_plugin`. The fixtures
are `virtual_clock`, `nvcore_host` (a host on fake devices) and the automatic `nvcore_leaks`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if "nvcore.api.marks" not in sys.modules:
    os.environ.setdefault("NVCORE_LOCKDEP", "1")

if TYPE_CHECKING:
    from nvcore.testing.clock import VirtualClock
    from nvcore.testing.host import HostKit

__all__ = ["nvcore_host", "nvcore_leaks", "virtual_clock"]

_GRACE = 2.0
"""Real seconds in which threads of a test may end after it."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; pass every log record through the allocation gate."""
    config.addinivalue_line("markers", "nvcore_leaks(reason): this test may leave threads or descriptors behind")
    from nvcore.locks import LOCKDEP, log_gate

    if not LOCKDEP:
        return
    make = logging.getLogRecordFactory()

    def gated(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        log_gate(record)
        return record

    logging.setLogRecordFactory(gated)
    config.add_cleanup(lambda: logging.setLogRecordFactory(make))


def pytest_report_header() -> str:
    """Say whether the validator is on."""
    from nvcore.api.marks import LOCKDEP

    return f"nvcore: lock validator {'on' if LOCKDEP else 'off'}"


def _left_threads(before: list[threading.Thread]) -> list[str]:
    """nvcore threads that a test started and that outlive it and the grace; of one that is in a client's `on_fault`, where."""
    from nvcore.locks import live_threads
    from nvcore.testing.contract import waits_in

    give_up = time.monotonic() + _GRACE
    left = [thread for thread in live_threads() if thread not in before]
    for thread in left:
        thread.join(max(0.0, give_up - time.monotonic()))
    alive = [(thread, waits_in("on_fault", thread)) for thread in left if thread.is_alive()]
    return [f"{thread.name}{where}, which must wait for nothing" if where else thread.name for thread, where in alive]


@pytest.fixture(autouse=True)
def nvcore_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test for swallowed violations, fences never signalled, threads and descriptors left behind."""
    from nvcore.locks import LOCKDEP, live_threads
    from nvcore.testing.contract import descriptors, more_descriptors

    threads, opened = live_threads(), descriptors()
    known: list[Any] = []
    if LOCKDEP:
        from nvcore.testing.lockdep.rules import violations

        known = list(violations())
    yield
    problems = []
    if LOCKDEP:
        from nvcore.testing.lockdep.fence import check_all_signalled
        from nvcore.testing.lockdep.rules import RuleBroken, forget, violations
        from nvcore.testing.lockdep.stack import drop_left_over

        problems += drop_left_over()
        for error in violations():
            if error not in known:
                problems.append(str(error))
                forget(error)
        try:
            check_all_signalled()
        except RuleBroken as error:
            forget(error)
            problems.append(str(error))
    if request.node.get_closest_marker("nvcore_leaks") is None:
        problems += [f"thread left behind: {name}" for name in _left_threads(threads)]
        problems += [f"descriptor left behind: {fd} -> {path}" for fd, path in more_descriptors(opened).items()]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that moves only when the test says so."""
    from nvcore.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def nvcore_host(nvcore_leaks: None, tmp_path: Path) -> Iterator[Callable[..., HostKit]]:
    """Makes and starts hosts on fake devices: `nvcore_host(offer or plugin module, …, gpus=1, clock=…)`, see `nvcore.testing.host.HostKit`.

    Every host is stopped when the test ends; the test fails for what hung, or was left in a device.
    """
    from nvcore.testing.host import HostKit

    kits: list[HostKit] = []

    def make(*what: Any, **options: Any) -> HostKit:
        kit = HostKit(*what, state_dir=tmp_path / f"state-{len(kits)}", **options)
        kits.append(kit)
        return kit.start()

    yield make
    left = [problem for kit in reversed(kits) for problem in kit.close()]
    if left:
        pytest.fail("\n".join(left), pytrace=False)
