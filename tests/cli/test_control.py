"""The client side of the control socket, against a server that is nobody's but this test's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvcore.api import errors
from nvcore.daemon.varlink import call, stream
from tests.cli.test_cli import GOOD, Site

Answer = Callable[[dict[str, Any]], bytes]


class Daemon:
    """Answers every request with what `answer` makes of it, then closes."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.requests: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            with link:
                data = b""
                while not data.endswith(b"\0"):
                    data += link.recv(4096)
                request = json.loads(data[:-1])
                self.requests.append(request)
                link.sendall(self._answer(request))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # a thread in accept keeps a closed socket alive
        self._socket.close()
        self._thread.join(5)


def reply(**parameters: Any) -> bytes:
    return json.dumps({"parameters": parameters}).encode() + b"\0"


def error(name: str, **parameters: Any) -> bytes:
    return json.dumps({"error": name, "parameters": parameters}).encode() + b"\0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[Answer], tuple[str, Daemon]]]:
    made: list[Daemon] = []

    def make(answer: Answer) -> tuple[str, Daemon]:
        made.append(Daemon(tmp_path / "s", answer))
        return str(tmp_path / "s"), made[0]

    yield make
    for one in made:
        one.close()


def test_a_call_carries_its_parameters_and_brings_the_answer(daemon) -> None:  # type: ignore[no-untyped-def]
    path, server = daemon(lambda request: reply(echo=request["parameters"]["x"]))
    assert call(path, "io.nvcore.Test.Echo", {"x": [1, None]}, timeout=5) == {"echo": [1, None]}
    assert server.requests == [{"method": "io.nvcore.Test.Echo", "parameters": {"x": [1, None]}}]


@pytest.mark.parametrize(
    ("name", "kind", "exit_code"),
    [
        ("io.nvcore.NotFound", errors.NotFoundError, 3),
        ("io.nvcore.NotRunning", errors.NotRunningError, 3),
        ("io.nvcore.Denied", errors.DeniedError, 4),
        ("io.nvcore.Conflict", errors.ConflictError, 1),
        ("io.nvcore.Invalid", errors.UsageError, 2),
        ("io.nvcore.Failed", errors.NvcoreError, 1),
        ("org.varlink.service.MethodNotFound", errors.NvcoreError, 1),
    ],
)
def test_the_daemons_errors_come_back_as_their_class_with_its_code(
    daemon, name: str, kind: type[errors.NvcoreError], exit_code: int
) -> None:  # type: ignore[no-untyped-def]
    path, _ = daemon(lambda request: error(name, code="NVC-3107", what="no slot", remedy="make room"))
    with pytest.raises(kind) as caught:
        call(path, "io.nvcore.Vgpu.Create", {}, timeout=5)
    assert (caught.value.code, caught.value.exit_code) == ("NVC-3107", exit_code)
    assert caught.value.what == "no slot" and caught.value.remedy == "make room"
    assert kind.code != "NVC-3107"


@pytest.mark.parametrize("answer", [b"", b"no json\0", b"[1]\0", b"{}", b"\xff\0", b"{" * 5000 + b"\0"])
def test_what_does_not_speak_varlink_is_unreachable(daemon, answer: bytes) -> None:  # type: ignore[no-untyped-def]
    path, _ = daemon(lambda request: answer)
    with pytest.raises(errors.UnreachableError) as caught:
        call(path, "io.nvcore.Host.Describe", {}, timeout=5)
    assert caught.value.exit_code == 5


def test_silence_ends_with_the_time_out(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with listener, pytest.raises(errors.WaitTimeout) as caught:
        call(str(tmp_path / "s"), "io.nvcore.Host.Describe", {}, timeout=0.1)
    assert caught.value.expected == "within 0.1 s"


@pytest.mark.parametrize("part", [b'{"parameters"', b'{"parameters": {"text": "' + b"x" * 200])
def test_an_answer_that_begins_and_does_not_end_ends_with_the_time_out(tmp_path: Path, part: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def drip() -> None:
        link, _ = listener.accept()
        with link, contextlib.suppress(OSError):
            for byte in part:
                link.sendall(bytes([byte]))
                time.sleep(0.05)
            link.recv(1 << 16)
            link.recv(1)  # until the caller has left

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    began = time.monotonic()
    with listener, pytest.raises(errors.WaitTimeout) as caught:
        call(str(tmp_path / "s"), "io.nvcore.Host.Describe", {}, timeout=0.4)
    assert caught.value.expected == "within 0.4 s" and time.monotonic() - began < 3
    thread.join(5)


def test_no_socket_a_stale_one_and_a_path_too_long_are_told_apart(tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    none = [(str(tmp_path / name), "No such file") for name in ("none", os.fsdecode(b"no text: \xff"))]
    for path, seen in (*none, (str(stale), "refused"), ("/" + "x" * 107, "108")):
        with pytest.raises(errors.UnreachableError) as caught:
            call(path, "m", {}, timeout=1)
        assert seen in str(caught.value.seen)


def test_a_stream_yields_until_the_daemon_ends_it(daemon) -> None:  # type: ignore[no-untyped-def]
    def answer(request: dict[str, Any]) -> bytes:
        assert request["more"] is True
        parts = [{"parameters": {"n": n}, "continues": n < 2} for n in range(3)]
        return b"".join(json.dumps(part).encode() + b"\0" for part in parts)

    path, _ = daemon(answer)
    assert [one["n"] for one in stream(path, "io.nvcore.Event.Watch", {}, timeout=5)] == [0, 1, 2]


def test_list_and_doctor_show_the_daemons_states_and_what_changed_on_the_disk(tmp_path: Path, daemon) -> None:  # type: ignore[no-untyped-def]
    site = Site(tmp_path)
    site.plugin("good", GOOD, family="client")
    (row,) = (row for row in json.loads(site.run("plugins", "list", "--json").stdout)["plugins"] if row["name"] == "good")
    row.update(state="failed", code="NVC-1109", reason="nvcore_host_started of good did not return", remedy="upgrade it", notes=[])
    path, server = daemon(lambda request: reply(plugins=[row]) if request["method"].endswith("List") else reply(plugin={}))
    site.plugin("late", GOOD, family="client")
    for verb in ("list", "doctor"):
        done = site.run("plugins", verb, "--json", select=False, NVCORE_SOCKET=path)
        assert done.returncode == 7, done.stderr
        document = json.loads(done.stdout)
        rows = {one["name"]: one for one in document["plugins"]}
        assert document["source"] == "daemon" and rows["good"]["code"] == "NVC-1109" and rows["good"]["notes"] == []
        assert rows["late"]["notes"] == ["not seen by the daemon: only on PYTHONPATH (NVC-1117)"] and rows["late"]["state"] == "found"
    assert json.loads(site.run("plugins", "list", "--json", "--installed", select=False, NVCORE_SOCKET=path).stdout)["source"] == "index"
    assert site.run("plugins", "stop", "good", select=False, NVCORE_SOCKET=path).returncode == 0
    assert server.requests[-1] == {"method": "io.nvcore.Plugin.Stop", "parameters": {"name": "good"}}
