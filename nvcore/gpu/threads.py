"""The threads of one GPU: workers that take jobs in order, and calls that can be abandoned.

A `Worker` is one thread with a queue: the life-cycle thread, the thread that client callbacks run on, and one delivery thread per client. A
callback that overruns its deadline is abandoned together with its thread, and a fresh one takes over: a hung client costs a thread, not the
host. Jobs are an isolation boundary ("worker"): what they raise is handed to whoever waits, or to `on_error`, and ends no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from nvcore.api import errors
from nvcore.api.clock import Clock
from nvcore.api.errors import ContractError, NvcoreError, WaitTimeout
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import Lock, start_thread


class Job:
    """One call, and how it ended. awaited: somebody waits, and hears of its errors. running: it can be abandoned now, and no more be taken
    back."""

    __slots__ = ("awaited", "call", "done", "error", "result", "running", "what")

    def __init__(self, call: Callable[[], Any], what: str, awaited: bool = False) -> None:
        self.call, self.what, self.awaited, self.running = call, what, awaited, False
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, on_error: Callable[[str, BaseException], None] | None) -> None:
        """Run it; an isolation boundary."""
        try:
            self.result = self.call()
        except BaseException as error:  # isolation boundary: worker; whatever a plugin raises ends neither the host nor this thread
            self.error = error
            if on_error is not None and not self.awaited:
                on_error(self.what, error)
        finally:
            self.call = lambda: None  # what the call held goes now
            self.done.set()

    @may_sleep
    def wait(self, clock: Clock, timeout: float) -> Any:
        """The result, or what the call raised where that is awaited: as a ContractError, if it is none that may end its waiter, such as
        SystemExit. Raises WaitTimeout."""
        if not clock.wait(self.done, timeout) and not self.done.is_set():
            raise WaitTimeout(f"{self.what} did not end", expected=f"within {timeout:g} s")
        if self.awaited and isinstance(self.error, Exception):
            raise self.error
        if self.awaited and self.error is not None:
            raise ContractError(f"{self.what} raised {describe_error(self.error)[0]}") from self.error
        return self.result


class Worker:
    """A thread that runs jobs in order, from the making of the worker on: `post` makes none (a receiver thread may not). on_error: told of
    every job that raised and that nobody awaits. abandoned: what hung here and was left behind."""

    def __init__(self, name: str, clock: Clock, on_error: Callable[[str, BaseException], None] | None = None) -> None:
        self.name, self._clock, self._on_error = name, clock, on_error
        self._lock = Lock("worker", leaf=True)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # each thread has its own: one that was abandoned finds no more in it
        self._stopping = False
        self.abandoned: tuple[str, ...] = ()
        self._thread = start_thread(name, self._loop)

    def here(self) -> bool:
        """Whether the caller is this worker's thread."""
        return self._thread is threading.current_thread()

    @signalling_safe
    def post(self, call: Callable[[], Any], what: str, *, awaited: bool = False) -> Job:
        """Queue a job; does not wait. awaited: as of a `Job`."""
        job = Job(call, what, awaited)
        with self._lock:
            if not self._stopping:
                self._jobs.put(job)
                return job
        job.error = ContractError(f"{what}: {self.name} is stopped")
        job.done.set()
        return job

    @may_sleep
    def call(self, call: Callable[[], Any], what: str, timeout: float, *, abandon: bool = False) -> Any:
        """Run a job and wait for it. Raises what it raises, or WaitTimeout; with `abandon` the thread that hangs in it is then replaced."""
        if self.here():
            return call()
        job = self.post(call, what, awaited=True)
        try:
            return job.wait(self._clock, timeout)
        except WaitTimeout:
            if abandon:
                self._replace(job)
            raise

    def _replace(self, job: Job) -> None:
        with self._lock:
            if not job.running:  # not yet, or no more: it came back while its caller gave up
                job.call = lambda: None
                return
            self.abandoned = (*self.abandoned, job.what)
            left, self._jobs = self._jobs, SimpleQueue()
            while not left.empty():
                self._jobs.put(left.get())
        self._thread = start_thread(self.name, self._loop)

    def _loop(self) -> None:
        jobs, self._thread = self._jobs, threading.current_thread()
        while jobs is self._jobs and (job := jobs.get()) is not None:
            with self._lock:
                job.running = True
            job.run(self._on_error)
            with self._lock:
                job.running = False  # who abandoned it has put a new queue in place of this thread's by now; nobody will any more

    @may_sleep
    def stop(self, timeout: float) -> bool:
        """End the thread after the jobs queued so far; False when it hangs (it is a daemon thread and does not keep the process)."""
        with self._lock:
            self._stopping = True
            self._jobs.put(None)
        if not self.here():
            self._thread.join(timeout)
        return not self._thread.is_alive()


def fails(problems: list[str], what: str, call: Callable[..., object], *args: object) -> bool:
    """Make a call, a step of a way down that goes on whatever happens; whether it raised, which is then among the problems."""
    try:
        call(*args)
    except BaseException as error:  # isolation boundary: worker
        problems.append(f"{what}: {describe_error(error)[0]}")
        return True
    return False


_GENERIC = {getattr(errors, name).usual_remedy for name in errors.__all__}


def describe_error(error: BaseException) -> tuple[str, str | None, str | None]:
    """(cause, code, remedy) of what was raised; of a boot that stopped, the code of what stopped it. remedy: None where there is only what
    goes for all errors of the kind, since who asks knows the GPU or the plugin and can say more."""
    if isinstance(error, NvcoreError):
        said = [f"; {word} {value}" for word, value in (("expected", error.expected), ("seen", error.seen)) if value]
        report = getattr(error, "report", None)
        return "".join([error.what, *said]), getattr(report, "code", None) or error.code, None if error.remedy in _GENERIC else error.remedy
    return f"{type(error).__name__}: {error}".removesuffix(": "), None, None
