"""The control socket speaks varlink, lets only some callers change things, and survives whatever comes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvcore.api.control import Call, Caller
from nvcore.api.errors import ConflictError, NotFoundError, NvcoreError, UsageError
from nvcore.api.offers import InterfaceOffer
from nvcore.daemon.server import MAX_OTHERS, ControlServer
from nvcore.daemon.varlink import MAX_REQUEST, BadMessage, Link, methods_of

TEXT = """interface org.example.Toy
method Echo(text: string) -> (text: string)
method Count(to: int) -> (n: int)
method Change() -> ()
method Break(how: string) -> ()
"""


class Toy:
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.callers: list[Caller] = []

    def Echo(self, call: Call) -> dict[str, Any]:
        self.callers.append(call.caller)
        return {"text": call.parameters.get("text")}

    def Count(self, call: Call) -> Iterator[dict[str, Any]]:
        try:
            for n in range(call.parameters["to"]):
                yield {"n": n}
                time.sleep(call.parameters.get("pause", 0))
        finally:
            self.closed.set()

    def Change(self, call: Call) -> dict[str, Any]:
        return {}

    def Break(self, call: Call) -> dict[str, Any]:
        how = call.parameters.get("how")
        if how == "notfound":
            raise NotFoundError("no such thing", expected="a", seen="b", remedy="c")
        if how == "conflict":
            raise ConflictError("two")
        if how == "usage":
            raise UsageError("bad")
        if how == "own":
            raise NvcoreError("own")
        if how == "exit":
            sys.exit(3)
        return {"x": 1 // 0}


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def server(tmp_path: Path, toy: Toy) -> Iterator[ControlServer]:
    made = ControlServer(str(tmp_path / "run" / "control.sock"), version="1.2")
    made.add(InterfaceOffer("org.example.Toy", "", TEXT, frozenset({"Echo", "Count", "Break"}), frozenset({"Change"}), toy))
    made.start()
    yield made
    made.stop()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("control") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)


class Client:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(path)
        self.pending = b""

    def send(self, **call: Any) -> None:
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.pending:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.pending += data
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.send(method=method, parameters=parameters)
        return self.receive()


@pytest.fixture
def client(server: ControlServer) -> Iterator[Client]:
    made = Client(server.path)
    yield made
    made.socket.close()


def test_a_call_is_answered_and_the_connection_stays(client: Client, toy: Toy) -> None:
    for text in ("a", "ü\x1b[31m", "x" * 100_000):
        assert client.ask("org.example.Toy.Echo", text=text) == {"parameters": {"text": text}}
    assert toy.callers[0].pid == os.getpid() and toy.callers[0].uid == os.geteuid() and toy.callers[0].controller


def test_the_varlink_package_understands_the_service(server: ControlServer, toy: Toy) -> None:
    varlink = pytest.importorskip("varlink")
    with varlink.Client(f"unix:{server.path}") as peer, peer.open("org.example.Toy") as link, peer.open("org.varlink.service") as service:
        assert "org.example.Toy" in service.GetInfo()["interfaces"]
        assert link.Echo("hello")["text"] == "hello"
        assert [answer["n"] for answer in link.Count(3, _more=True)] == [0, 1, 2]
        with pytest.raises(varlink.VarlinkError):
            link.Break("notfound")


@pytest.mark.parametrize(
    ("how", "name", "code"),
    [
        ("notfound", "io.nvcore.NotFound", "NVC-1002"),
        ("conflict", "io.nvcore.Conflict", "NVC-1005"),
        ("usage", "io.nvcore.Invalid", "NVC-1001"),
        ("own", "io.nvcore.Failed", "NVC-1000"),
        ("zero", "io.nvcore.Failed", "NVC-1012"),
        ("exit", "io.nvcore.Failed", "NVC-1012"),
    ],
)
def test_errors_travel_by_name_with_their_code_and_the_daemon_lives(client: Client, how: str, name: str, code: str) -> None:
    answer = client.ask("org.example.Toy.Break", how=how)
    assert answer["error"] == name and answer["parameters"]["code"] == code
    assert client.ask("org.example.Toy.Echo", text="still here")["parameters"]["text"] == "still here"


def test_unknown_interfaces_and_methods_are_told_apart(client: Client) -> None:
    assert client.ask("org.other.X")["error"] == "org.varlink.service.InterfaceNotFound"
    assert client.ask("org.example.Toy.Nope")["error"] == "org.varlink.service.MethodNotFound"
    assert client.ask("org.varlink.service.Nope")["error"] == "org.varlink.service.MethodNotFound"
    assert client.ask("org.varlink.service.GetInterfaceDescription", interface="x")["error"] == "org.varlink.service.InvalidParameter"


def test_a_caller_without_the_right_observes_and_does_not_control(
    server: ControlServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.ask("org.example.Toy.Change") == {"parameters": {}}
    monkeypatch.setattr(ControlServer, "_caller", lambda self, link: Caller(65534, 65534, 1, False))
    stranger = Client(server.path)
    assert stranger.ask("org.example.Toy.Echo", text="x")["parameters"]["text"] == "x"
    assert stranger.ask("org.example.Toy.Change")["error"] == "io.nvcore.Denied"
    stranger.socket.close()


def test_observers_cannot_shut_out_who_may_control(server: ControlServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.ask("org.example.Toy.Echo", text="x")
    own = ControlServer._caller
    monkeypatch.setattr(ControlServer, "_caller", lambda self, link: Caller(65534, 65534, 1, False))
    strangers = [Client(server.path) for _ in range(MAX_OTHERS + 3)]
    with pytest.raises((EOFError, OSError)):
        strangers[-1].ask("org.example.Toy.Echo", text="x")
    assert strangers[0].ask("org.example.Toy.Echo", text="x")
    monkeypatch.setattr(ControlServer, "_caller", own)
    late = Client(server.path)
    assert late.ask("org.example.Toy.Change") == {"parameters": {}}
    for one in (*strangers, late):
        one.socket.close()


def test_a_stream_continues_until_its_last_answer_and_without_more_there_is_one(client: Client, toy: Toy) -> None:
    client.send(method="org.example.Toy.Count", parameters={"to": 3}, more=True)
    answers = [client.receive() for _ in range(3)]
    assert [answer["parameters"]["n"] for answer in answers] == [0, 1, 2]
    assert [answer.get("continues", False) for answer in answers] == [True, True, False]
    assert client.ask("org.example.Toy.Count", to=3) == {"parameters": {"n": 0}}


def test_a_stream_ends_when_its_reader_leaves(server: ControlServer, toy: Toy) -> None:
    reader = Client(server.path)
    reader.send(method="org.example.Toy.Count", parameters={"to": 10**9, "pause": 0.01}, more=True)
    reader.receive()
    reader.socket.close()
    assert toy.closed.wait(5)


def test_a_oneway_call_has_no_answer(client: Client) -> None:
    client.send(method="org.example.Toy.Echo", parameters={"text": "quiet"}, oneway=True)
    assert client.ask("org.example.Toy.Echo", text="loud")["parameters"]["text"] == "loud"


@pytest.mark.parametrize(
    "data",
    [
        b"{}\0",
        b"[]\0",
        b"nonsense\0",
        b'{"method":7}\0',
        b'{"method":"a.b","parameters":[]}\0',
        b"[" * 100_000 + b"\0",
        b"\0",
        b"\xff\xfe\0",
    ],
)
def test_what_is_no_call_ends_the_connection_and_nothing_else(server: ControlServer, client: Client, data: bytes) -> None:
    bad = Client(server.path)
    bad.socket.sendall(data)
    with pytest.raises((EOFError, ConnectionResetError)):
        bad.receive()
    bad.socket.close()
    assert client.ask("org.example.Toy.Echo", text="x")["parameters"]["text"] == "x"


def test_a_request_without_end_is_cut_off_at_the_limit(server: ControlServer) -> None:
    greedy = Client(server.path)
    with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
        for _ in range(MAX_REQUEST // 65536 + 64):
            greedy.socket.sendall(b"x" * 65536)
        greedy.receive()
    greedy.socket.close()


@pytest.mark.parametrize("pause", [0.05, 0.0005])
def test_a_request_that_comes_byte_by_byte_is_cut_off_when_its_time_is_over(pause: float) -> None:
    ours, theirs = socket.socketpair()
    link, end = Link(ours, idle=0.3), threading.Event()

    def drip() -> None:
        while not end.wait(pause):
            theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(BadMessage, match="not completed"):
            link.receive()
        assert 0.2 < time.monotonic() - began < 3
    finally:
        end.set()
        thread.join()
        ours.close()
        theirs.close()


def test_where_no_descriptor_is_free_who_comes_waits_and_is_served_later(server: ControlServer, client: Client) -> None:
    assert client.ask("org.example.Toy.Echo", text="x")
    late = socket.socket(socket.AF_UNIX)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 8, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        late.connect(server.path)
        time.sleep(0.3)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        late.close()
    after = Client(server.path)
    assert after.ask("org.example.Toy.Echo", text="x") == {"parameters": {"text": "x"}}
    after.socket.close()


def test_the_name_goes_before_the_listener_so_that_it_is_never_a_later_servers(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    own = os.unlink

    def unlink(path: str) -> None:
        probe = socket.socket(socket.AF_UNIX)
        steps.append("served" if probe.connect_ex(path) == 0 else "stale")
        probe.close()
        own(path)

    monkeypatch.setattr(os, "unlink", unlink)
    server.stop()
    assert steps == ["served"]


def test_a_stale_socket_is_replaced_a_served_one_and_a_long_path_refused(server: ControlServer, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="served by another process"):
        ControlServer(server.path).start()
    with pytest.raises(UsageError, match="too long"):
        ControlServer(str(tmp_path / ("x" * 120))).start()
    stale = tmp_path / "stale.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(stale))
    left.close()
    other = ControlServer(str(stale))
    other.start()
    assert oct(stale.stat().st_mode & 0o777) == "0o660"
    other.stop()
    assert not stale.exists()


@pytest.mark.parametrize("mask", [0, 0o077])
def test_others_come_as_far_as_the_socket_and_cannot_put_another_there(tmp_path: Path, mask: int) -> None:
    server = ControlServer(str(tmp_path / "a" / "b" / "s"))
    old = os.umask(mask)
    try:
        server.start()
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
        server.stop()
    assert [oct(folder.stat().st_mode & 0o777) for folder in (tmp_path / "a", tmp_path / "a" / "b")] == ["0o755", "0o755"]


def test_a_handler_that_does_not_fit_its_description_is_refused(server: ControlServer) -> None:
    with pytest.raises(UsageError, match="differ"):
        server.add(InterfaceOffer("org.example.Other", "", TEXT, frozenset({"Echo"}), frozenset(), Toy()))
    with pytest.raises(UsageError, match="lacks"):
        server.add(InterfaceOffer("org.example.Other", "", TEXT, frozenset(methods_of(TEXT)), frozenset(), object()))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(["method", "parameters", "more", "oneway"]),
            st.one_of(
                st.text(),
                st.integers(),
                st.booleans(),
                st.none(),
                st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
                st.sampled_from(["org.example.Toy.Echo", "org.example.Toy.Break", "org.varlink.service.GetInfo"]),
            ),
        ).map(lambda d: json.dumps(d).encode()),
    )
)
def test_arbitrary_bytes_never_take_the_daemon_down(server: ControlServer, data: bytes) -> None:
    noisy = Client(server.path)
    noisy.socket.sendall(data + b"\0")
    noisy.socket.close()
    polite = Client(server.path)
    assert polite.ask("org.example.Toy.Echo", text="x")["parameters"]["text"] == "x"
    polite.socket.close()
