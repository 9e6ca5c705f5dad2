"""The status screen on real streams: a terminal that is given back, colours by rule, ASCII, pipes, a width of nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import GPU0, NVCORE, SET, Running, images

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")  # a foreground colour
ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    firmware = images(tmp_path_factory.mktemp("images"))
    made = Running(*SET, "--gpu", f"{GPU0}&firmware={firmware}", "--gpu", "pci:0000:99:00.0", firmware=firmware)
    try:
        yield made.start()
    finally:
        made.close()


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, host: Running, *words: str, columns: int = 120, rows: int = 40, **env: str) -> None:
        self.seen = ""
        self._main, second = pty.openpty()
        fcntl.ioctl(second, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.before = termios.tcgetattr(second)
        self.process = subprocess.Popen(
            [*NVCORE, *words], env={**host.env, "TERM": "xterm-256color", **env}, stdin=second, stdout=second, stderr=second,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._second = second

    def read_until(self, word: str, seconds: float = 15.0) -> str:
        deadline = time.monotonic() + seconds
        while word not in self.seen:
            assert time.monotonic() < deadline, f"no {word!r} in {self.seen!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                self.seen += os.read(self._main, 65536).decode(errors="replace")
        return self.seen

    def resize(self, columns: int, rows: int) -> None:
        """As a terminal does when its window changes: the kernel tells the program in front."""
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._main, key)

    def end(self) -> int:
        """Its exit code, once everything that it wrote was read."""
        code = self.process.wait(15)
        while select.select([self._main], [], [], 0.1)[0]:
            self.seen += os.read(self._main, 65536).decode(errors="replace")
        return code

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._second)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for descriptor in (self._main, self._second):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def terminal(host: Running) -> Iterator[object]:
    made: list[Terminal] = []

    def start(*words: str, **more: object) -> Terminal:
        made.append(Terminal(host, *words, **more))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_in_a_terminal_it_is_coloured_and_says_what_is_wrong(terminal) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status")
    assert screen.end() == 7
    assert COLOUR.search(screen.seen) and "●" in screen.seen and "✗" in screen.seen and "NVC-1002" in screen.seen


def test_watching_goes_on_until_ctrl_c_and_gives_the_terminal_back(terminal, host: Running) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status", "--watch=0.2")
    screen.read_until("0000:41:00.0")
    assert "\x1b[?1049h" in screen.seen and "\x1b[?25l" in screen.seen  # the other screen, no cursor
    screen.seen = ""
    screen.read_until("0000:41:00.0")
    screen.press(b"\x03")
    assert screen.end() == 130
    assert "\x1b[?1049l" in screen.seen and "\x1b[?25h" in screen.seen and "Traceback" not in screen.seen
    assert screen.settings() == screen.before


def test_a_window_that_changes_is_drawn_at_once_and_says_what_it_cannot_show(terminal) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status", "--watch=3600", columns=160)
    assert "more lines" not in screen.read_until("EVENTS")
    screen.seen = ""
    screen.resize(160, 4)
    screen.read_until("more lines: make the window higher")
    assert "EVENTS" not in screen.seen and "nvcore" in screen.seen
    screen.seen = ""
    screen.resize(50, 60)
    screen.read_until("EVENTS")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.seen).splitlines()
    assert max(map(len, lines)) <= 50 and "more lines" not in screen.seen
    screen.press(b"\x03")
    assert screen.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_from_elsewhere_gives_the_terminal_back_too(terminal, number: int) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status", "--watch=0.2")
    screen.read_until("0000:41:00.0")
    os.kill(screen.process.pid, number)
    assert screen.end() in (130, 143)
    assert "\x1b[?1049l" in screen.seen and screen.settings() == screen.before


def test_a_daemon_that_goes_and_comes_back_is_shown_as_that(terminal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = Running("--only", "fw_gsp,vfio")
    try:
        other.start()
        screen = terminal("status", "--watch=0.1", NVCORE_SOCKET=str(other.socket))
        screen.read_until("running")
        other.run("stop")
        other.wait()
        screen.read_until("no daemon")
        screen.seen = ""
        other.manager.close()
        other.start()
        screen.read_until("running")
        screen.press(b"\x03")
        assert screen.end() == 130
    finally:
        other.close()


@pytest.mark.parametrize(
    ("words", "env", "colour", "escapes"),
    [
        ((), {}, False, False),
        ((), {"FORCE_COLOR": "1"}, True, True),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, True),  # bold stays
        ((), {"NO_COLOR": "1"}, False, False),
        (("--color", "always"), {}, True, True),
        (("--color=always",), {"NO_COLOR": "1"}, True, True),
        (("--color", "never"), {"FORCE_COLOR": "1"}, False, False),
        (("--color", "auto"), {}, False, False),
    ],
)
def test_colour_on_a_pipe(host: Running, words: tuple[str, ...], env: dict[str, str], colour: bool, escapes: bool) -> None:
    seen = host.run("status", *words, code=7, TERM="xterm-256color", **env).stdout
    assert bool(COLOUR.search(seen)) == colour and (ESCAPE in seen) == escapes and "0000:41:00.0" in seen


@pytest.mark.parametrize(
    ("words", "env", "colour"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        (("--color", "never"), {}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        ((), {"TERM": "dumb"}, False),
    ],
)
def test_colour_in_a_terminal(terminal, words: tuple[str, ...], env: dict[str, str], colour: bool) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status", *words, **env)
    assert screen.end() == 7
    assert bool(COLOUR.search(screen.seen)) == colour


def test_an_ascii_stream_gets_ascii(host: Running) -> None:
    for words, env in ((("status", "--ascii"), {}), (("status",), {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"})):
        command = [sys.executable, "-P", "-m", "nvcore", *words]  # not -I, which would not hear of the encoding
        done = subprocess.run(command, env={**host.env, **env}, capture_output=True, timeout=60)
        assert done.returncode == 7 and done.stdout.isascii() and b"* running" in done.stdout and b"X failed" in done.stdout


def test_a_terminal_that_reports_no_width_is_drawn_all_the_same(terminal) -> None:  # type: ignore[no-untyped-def]
    screen = terminal("status", columns=0, rows=0)
    assert screen.end() == 7 and "Traceback" not in screen.seen and "NVC-1002" in screen.seen


def test_a_gpu_without_an_address_is_shown_by_its_source(host: Running) -> None:
    table = host.run("gpus", code=7).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["GPU", "0000:41:00.0", "pci:0000:99:00.0"]
    assert host.run("gpus", "-o", "name", code=7).stdout == "0000:41:00.0\npci:0000:99:00.0\n"
    assert [row["address"] for row in host.json("gpus", code=7)["gpus"]] == ["0000:41:00.0", None]


def test_on_a_pipe_no_line_ends_in_blanks(host: Running) -> None:
    for words in (("status",), ("gpus", "-o", "wide"), ("plugins",)):
        lines = host.run(*words, code=None).stdout.splitlines()
        assert lines and lines == [line.rstrip() for line in lines]


def test_at_every_width_nothing_is_cut(terminal) -> None:  # type: ignore[no-untyped-def]
    for columns in (40, 80, 200):
        screen = terminal("status", columns=columns)
        assert screen.end() == 7 and "…" not in screen.seen


def test_where_rich_is_missing_there_are_plain_tables_with_the_same_facts(host: Running, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not here')\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from nvcore.cli.main import main; sys.exit(main(['status']))"
    done = subprocess.run([sys.executable, "-I", "-c", script], env=host.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7 and "pip install 'nvcore[status]'" in done.stderr
    assert "0000:41:00.0" in done.stdout and "NVC-1002" in done.stdout and ESCAPE not in done.stdout
