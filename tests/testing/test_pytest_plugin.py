"""The pytest plugin fails a test for what it left behind, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PLUGIN = "nvcore.testing.pytest_plugin"


def outcome(folder: Path, body: str, switch: str | None = None) -> tuple[int, str]:
    """Status and output of pytest on one test file, in a process of its own, with the plugin loaded once."""
    (folder / "test_it.py").write_text(body)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("NVCORE_LOCKDEP", "PYTEST_", "COV_"))}
    if switch is not None:
        env["NVCORE_LOCKDEP"] = switch
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    load = ["-p", "no:hypothesispytest"] + ([] if installed else ["-p", PLUGIN])  # the former is most of a small run's time
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", *load, str(folder)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


LEAKS = {
    "fence": ("Fence('left').publish()", "L9.never-signalled", "left"),
    "thread": ("start_thread('idler', Event().wait)", "thread left behind", "idler"),
    "descriptor": ("memfd('forgotten')", "descriptor left behind", "memfd:forgotten"),
    "lock": ("Lock('kept').acquire()", "kept is still held", "test_it.py:"),
    "swallowed violation": ("swallow()", "L1.self", "test_it.py:"),
    "logging in the path": ("log_in_path()", "L8.allocation", "a log record"),
}

HEAD = """
import logging
from threading import Event
from nvcore.locks import Fence, Lock, memfd, signalling, start_thread
from nvcore.testing.lockdep.rules import RuleBroken

def swallow():
    lock = Lock('mine')
    with lock:
        try:
            lock.acquire()
        except RuleBroken:
            pass

def log_in_path():
    with signalling():
        try:
            logging.getLogger('any').warning('hello')
        except RuleBroken:
            pass

"""


@pytest.mark.parametrize("name", LEAKS)
def test_a_test_that_leaves_something_behind_fails(tmp_path: Path, name: str) -> None:
    call, message, detail = LEAKS[name]
    status, output = outcome(tmp_path, f"{HEAD}\ndef test_leak():\n    {call}\n\ndef test_next_one_is_clean():\n    pass\n")
    assert status == 1, output
    assert message in output
    assert detail in output
    assert "2 passed, 1 error" in output, output


CLEAN = """
import os, threading
import pytest
from nvcore.locks import Fence, Lock, start_thread, memfd
from nvcore.testing.lockdep.rules import RuleBroken
from nvcore.testing import expect_violation
from nvcore.api.marks import LOCKDEP

def test_clean(virtual_clock):
    fence = Fence('f')
    fence.publish()
    start_thread('short', lambda: fence.signal())
    os.close(memfd('closed'))
    assert fence.wait(5)
    virtual_clock.advance(1)

@pytest.mark.skipif(not LOCKDEP, reason='off')
def test_expected():
    lock = Lock('a')
    with lock, expect_violation('L1.self'):
        lock.acquire()

@pytest.mark.nvcore_leaks('kept on purpose')
def test_marked():
    memfd('kept')
"""


@pytest.mark.parametrize(("switch", "words"), [(None, "lock validator on"), ("0", "lock validator off")])
def test_a_clean_test_passes_with_the_validator_on_or_off(tmp_path: Path, switch: str | None, words: str) -> None:
    status, output = outcome(tmp_path, CLEAN, switch)
    assert status == 0, output
    assert words in output


def test_an_expectation_that_is_not_met_fails(tmp_path: Path) -> None:
    body = "from nvcore.testing import expect_violation\ndef test_it():\n    with expect_violation('L1.self'):\n        pass\n"
    status, output = outcome(tmp_path, body)
    assert status == 1
    assert "L1.self was not detected" in output
