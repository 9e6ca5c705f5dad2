"""What a lock costs with the validator off and on, against a bare one: `python tests/bench/locks.py`. Prints one JSON object.

Nanoseconds per acquire and release, alone and under two others; sections; and the milliseconds that importing `nvcore.locks` adds to an
interpreter that has `threading` and `typing` loaded. Bar (L11): off, a lock costs at most 1.2 of a bare one (it is the same object: the
rest is noise). Exit status 1 if it is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

LOOPS = 20_000
BAR = 1.2

_IMPORT = "import threading, typing, time\nt = time.perf_counter()\nimport nvcore.locks\nprint(time.perf_counter() - t)"


def nanoseconds(body: Callable[[int], object]) -> float:
    """Best of nine runs of `body(LOOPS)`, per loop."""
    best = float("inf")
    for _ in range(9):
        start = time.perf_counter_ns()
        body(LOOPS)
        best = min(best, (time.perf_counter_ns() - start) / LOOPS)
    return round(best, 1)


def take(lock: Any) -> Callable[[int], None]:
    """A loop that takes and drops `lock`."""

    def loop(count: int) -> None:
        for _ in range(count):
            with lock:
                pass

    return loop


def measure() -> dict[str, float]:
    """All figures of this process."""
    from nvcore import locks

    outer = [locks.Lock("bench.outer"), locks.Lock("bench.middle")]
    found = {"bare": nanoseconds(take(threading.Lock())), "lock": nanoseconds(take(locks.Lock("bench.lock")))}
    with outer[0], outer[1]:
        found["lock under two"] = nanoseconds(take(locks.Lock("bench.inner")))

    def sections(count: int) -> None:
        for _ in range(count):
            with locks.signalling():
                pass

    def sleeps(count: int) -> None:
        for _ in range(count):
            locks.might_sleep("bench")

    found["signalling, one thread"] = nanoseconds(sections)
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    found["signalling, two threads"] = nanoseconds(sections)
    end.set()
    other.join()
    found["might_sleep"] = nanoseconds(sleeps)
    return found


def child(cache: str, switch: str, *arguments: str) -> str:
    """The output of this interpreter in an environment with the validator's switch set."""
    env = {**os.environ, "NVCORE_LOCKDEP": switch, "PYTHONPYCACHEPREFIX": cache}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # imports are measured with compiled files at hand
    return subprocess.run([sys.executable, "-P", *arguments], env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def main() -> int:
    """Measure in two processes and print; 1 when the bar is missed."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, switch in (("off", "0"), ("on", "1")):
            figures = json.loads(child(cache, switch, __file__, "--measure"))
            figures["import ms"] = round(min(float(child(cache, switch, "-c", _IMPORT)) for _ in range(7)) * 1000, 2)
            result[name] = figures
    ratio = result["off"]["lock"] / result["off"]["bare"]
    result["off, lock against bare"] = round(ratio, 3)
    result["bar"] = BAR
    print(json.dumps(result))
    return int(ratio > BAR)


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure()))
    else:
        raise SystemExit(main())
