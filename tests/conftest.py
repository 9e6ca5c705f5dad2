"""For all tests: what was skipped is said, and where CI runs, a missing outside judge is a failure.

A test that cannot run here calls `pytest.skip` with the reason. In CI every skip fails the run, unless its reason begins with
"by design:" (the test does not apply, and nothing would change that).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_BY_DESIGN = "by design:"
_skipped: list[str] = []


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and not _reason(report).startswith(_BY_DESIGN):
        _skipped.append(f"{report.nodeid}: {_reason(report)}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_collection_finish() -> None:
    """What pytest and the imports made stays until the end: no collection of a test's own garbage need look at it again.

    A host that stops collects, and so does the check for leaks; with 2,000 collected tests on the heap that was half of the time.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("CI") == "true" and _skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CI") == "true" and _skipped:
        terminalreporter.section("CI: these must not be skipped", red=True)
        for line in _skipped:
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def tested_is_what_was_installed() -> Iterator[None]:
    """Under dev.py the wheels are tested: a package out of the checkout would be a hole in the proof."""
    if "NVCORE_TEST_WHEELS" in os.environ:
        import nvcore

        assert Path(__file__).resolve().parent.parent not in Path(nvcore.__file__).resolve().parents or ".nvcore" in nvcore.__file__
    yield
