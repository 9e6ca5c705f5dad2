"""Commands: what a plugin's noun on the command line is, and what it gets.

A noun is an entry point of group `nvcore.command.v1`: its name is the noun, its object is a callable `vgpu(argv, io) -> int`. It is
imported only when that noun is used, in the process of the command line, on the main thread. It returns an exit code (0 ok, 1 failed,
2 usage, 3 not found or not running, 4 permission, 5 daemon unreachable, 6 state differs, 7 partial) or raises an error of
`nvcore.api.errors`, which the command line prints and turns into its exit code. Data goes to `io.out`, everything else to `io.say`.
`--config`, `--socket` and `--timeout` are the command line's own, wherever they stand, and never reach `argv`. Since API 1.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol, TextIO

    from nvcore.api.offers import ConfigSection
else:
    Protocol = object  # typing costs a bare start; these classes are for type checkers and readers

__all__ = ["Command", "CommandIO"]


class CommandIO(Protocol):
    """The command line's side; `stdout` and `stderr` are the streams, for what the methods below do not cover."""

    stdout: TextIO
    stderr: TextIO

    @property
    def plain(self) -> bool:
        """Whether standard output carries ASCII only."""

    @property
    def columns(self) -> int | None:
        """Width of the terminal; None where there is none or it does not know."""

    def out(self, text: str) -> None:
        """Write data to standard output, control characters escaped (newline and tab are kept)."""

    def say(self, text: str) -> None:
        """Write one line for the reader to standard error."""

    def show(
        self, output: str, *, schema: str, key: str, rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str, str]],
        name: str = "name",
    ) -> None:  # fmt: skip
        """Print rows. output: "table", "wide", "json", "jsonl" or "name", else UsageError. columns: (key, heading, kind), kind "left",
        "right" or "wide" (shown by `-o wide` only). schema and key: of the JSON document and the array in it. name: what `-o name` prints.
        """

    def section(self, offer: ConfigSection) -> Any:
        """The record of the plugin's own section, as the daemon would make it from the same files. Raises ConfigError."""

    def call(self, method: str, parameters: dict[str, Any] | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        """One call to the daemon's control socket, as in "io.nvcore.Vgpu.List".

        timeout: seconds, None = `--timeout` or 30. Raises UnreachableError, WaitTimeout, or the daemon's own error as its nearest class.
        """

    def stream(self, method: str, parameters: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """A call with `more`: answers until the daemon ends it."""


class Command(Protocol):
    """The object of an entry point of group `nvcore.command.v1`."""

    def __call__(self, argv: Sequence[str], io: CommandIO) -> int:
        """Run with the words behind the noun; returns the exit code."""
