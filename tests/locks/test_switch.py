"""One switch: off costs nothing, `log` says it once and goes on, on raises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvcore.api.marks import LOCKDEP


def run(switch: str | None, code: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "NVCORE_LOCKDEP"}
    if switch is not None:
        env["NVCORE_LOCKDEP"] = switch
    return subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)


INVERT = """
from nvcore.locks import Lock, might_sleep, allocate, signalling
a, b = Lock("a"), Lock("b")
for _ in range(3):
    with a, b: pass
    with b, a: pass
print("went on")
"""


@pytest.mark.parametrize("switch", [None, "", "0"])
def test_off_is_a_bare_lock_and_silence(switch: str | None) -> None:
    done = run(switch, "import threading; from nvcore.locks import Lock; print(type(Lock('x')) is type(threading.Lock()))" + INVERT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nwent on\n", "")


def test_off_loads_two_small_modules_and_nothing_heavy() -> None:
    code = "import sys, __future__, contextlib, threading, typing; old = set(sys.modules); import nvcore.locks"
    code += "; print(*sorted(set(sys.modules) - old))"
    done = run(None, code)
    loaded = "nvcore nvcore.api nvcore.api.marks nvcore.locks nvcore.locks.primitives"
    assert done.stdout.split() == loaded.split()


def test_off_everything_still_works() -> None:
    code = """
from nvcore import locks
with locks.AcquireContext() as context:
    context.lock_all([locks.WwLock("x"), locks.WwLock("y")])
fence = locks.Fence("f"); fence.add_callback(lambda f: print(f.name)); fence.publish()
with locks.signalling(), locks.atomic(), locks.counting(), locks.task_stack("t"), locks.Reserve(1):
    fence.signal()
assert fence.wait(1)
with locks.RLock("r") as _: locks.might_sleep("here"); locks.might_wait(); locks.user_copy(); locks.mmap_lock(); locks.assert_none_held()
locks.end_signalling(locks.begin_signalling()); locks.declare_order("a", "b"); locks.assert_held(None); assert locks.log_gate(None)
locks.start_thread("t", lambda: print("ran")).join()
from nvcore.api.errors import ContractError
try: fence.signal()
except ContractError: print("refused")
"""
    done = run(None, code)
    assert (done.stdout, done.stderr) == ("f\nran\nrefused\n", "")


def test_on_raises() -> None:
    done = run("1", INVERT)
    assert done.returncode == 1
    assert "L3.cycle" in done.stderr
    assert done.stdout == ""


def test_log_says_it_once_with_both_places_and_goes_on() -> None:
    done = run("log", INVERT)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert done.stderr.count("L3.cycle") == 1
    assert done.stderr.count("<string>:5") == 2
    assert done.stderr.count("<string>:6") == 2


def test_log_goes_on_after_every_kind_of_violation() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + """
from violations import TABLE
from nvcore.testing.lockdep.graph import isolated_graph
from nvcore.testing.lockdep.stack import task_stack
# these then block, fail by themselves, or do what they were told not to
unfit = "lock_taken_again import_in_path import_in_path_despite_a_reserve task_releases_the_thread_s_lock reservations_without_context"
for name, rule, violation, twin in TABLE:
    if name not in unfit.split():
        with isolated_graph(), task_stack(name) as stack:
            violation(name)
        assert (stack.held, stack.signalling, stack.atomic) == ([], 0, 0), name
print("all")
"""
    done = run("log", code)
    assert done.stdout.endswith("all\n"), done.stderr[-2000:]


def test_the_two_halves_have_the_same_names() -> None:
    if not LOCKDEP:
        pytest.skip("by design: the validator is off")
    from nvcore.testing.lockdep import checked

    names = "(name for name in locks.__all__ if getattr(vars(locks).get(name), '__module__', '') == 'nvcore.locks' and name != 'LockLike')"
    done = run(None, f"from nvcore import locks; print(*{names})")
    assert set(done.stdout.split()) == set(checked.__all__)
