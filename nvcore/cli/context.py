"""Context: what a command gets (`nvcore.api.command.CommandIO`), and what the core's own commands may ask beyond that.

Owns the streams, the global options and the configuration, read once and on use. Main thread. Imports what costs only when it is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from nvcore.api.command import CommandIO
from nvcore.api.errors import UsageError
from nvcore.cli.args import Arguments
from nvcore.cli.output import ascii_only, chosen, document, safe, table, view
from nvcore.config.places import config_files, socket_path
from nvcore.plugins.index import Index, scan
from nvcore.plugins.select import Selection, inventory, select
from nvcore.plugins.states import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from nvcore.api.offers import ConfigSection
    from nvcore.config.model import Configuration


class Context(CommandIO):
    """Streams, options, configuration, selection.

    given: the words behind the noun and the verb, and all options; verb: as in verbs.txt; output: the format that `-o` asks for.
    """

    def __init__(self, given: Arguments) -> None:
        self.stdout, self.stderr = sys.stdout, sys.stderr
        self.given, self.verb, self.output = given, "-", "table"
        self._configuration: Configuration | None = None

    @property
    def plain(self) -> bool:
        """Whether standard output carries ASCII only."""
        return ascii_only(self.stdout)

    @property
    def columns(self) -> int | None:
        """Width of the terminal; None where there is none or it does not know (some report 0)."""
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns or None
        except (OSError, ValueError, AttributeError):
            return None

    @property
    def socket(self) -> str:
        """Path of the control socket: `--socket`, then NVCORE_SOCKET, then the configuration's, then the default."""
        given = self.given.text("socket") or os.environ.get("NVCORE_SOCKET")
        if not given and self.has_files:
            given = self.configuration().host.socket
        return given or socket_path()

    @property
    def timeout(self) -> float:
        """`--timeout` in seconds, 30 by default. Raises UsageError."""
        return self.given.seconds("timeout", 30)

    def configuration(self, tables: Mapping[str, Any] | None = None) -> Configuration:
        """The configuration, read on first use. tables: from the command line, laid over the files. Raises ConfigError."""
        if self._configuration is None:
            from nvcore.config.files import load

            self._configuration = load(self.given.text("config"), command_line=tables)
        return self._configuration

    @property
    def has_files(self) -> bool:
        """Whether there is any configuration file; where there is none nothing needs to be read."""
        return bool(config_files(self.given.text("config")))

    def selection(self) -> Selection:
        """The command line's selection laid over the configuration's; files are read only where there are any. Raises UsageError."""
        only = self.given.many("only") if self.given.flag("only") else None
        for word in self.given.many("p"):
            if not word.startswith("no:") or len(word) == 3:
                raise UsageError(f"-p {word} has no meaning", expected="-p no:NAME")
        said = Selection(only, disabled=[word[3:] for word in self.given.many("p")], none=self.given.flag("none"))
        if said.none or not self.has_files:
            return said
        lists = self.configuration().plugins
        return said.under(lists.only, lists.disable, lists.required)

    def plugins(self, index: Index | None = None) -> list[Plugin]:
        """The plugins of an index (without one: scanned now) under this selection; none is imported."""
        return select(inventory(index or scan()), self.selection())

    def aside(self) -> AbstractContextManager[object]:
        """What plugins print inside is no data: it goes to standard error."""
        from contextlib import redirect_stdout

        return redirect_stdout(self.stderr)

    def out(self, text: str) -> None:
        """Write data to standard output, control characters escaped (newline and tab are kept)."""
        plain = self.plain
        self.stdout.write("\n".join("\t".join(safe(cell, plain) for cell in line.split("\t")) for line in text.split("\n")))

    def line(self, text: str) -> None:
        """Write one line of data; a newline inside, which may be a guest's or the firmware's, is escaped too."""
        self.stdout.write(safe(text, self.plain) + "\n")

    def say(self, text: str) -> None:
        """Write one line for the reader to standard error."""
        self.stderr.write(safe(text, ascii_only(self.stderr)) + "\n")

    def show(
        self, output: str, *, schema: str, key: str, rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, ...]],
        name: str = "name", extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Print rows; see CommandIO.show. A kind may be "wide right" too; extra: other members of the JSON document."""
        if chosen(output) == "json":
            self.stdout.write(document(schema, {**(extra or {}), key: list(rows)}))
        elif output == "jsonl":
            import json

            self.stdout.write("".join(json.dumps(row) + "\n" for row in rows))
        elif output == "name":
            self.stdout.write("".join(safe(str(row.get(name)), self.plain) + "\n" for row in rows))
        else:
            self.stdout.write(table(rows, [column for column in columns if output == "wide" or column[2][:4] != "wide"], self.plain))

    @property
    def tabular(self) -> bool:
        """Whether a table is asked for, and words beside it are welcome."""
        return self.output in ("table", "wide")

    def view(self, name: str, rows: Sequence[dict[str, Any]], output: str | None = None, **extra: Any) -> None:
        """Print rows of one of the core's views, as `tables.txt` declares it. output: another format than asked for; extra: other members
        of the JSON document."""
        key, row, none, columns = view(name)
        if none and not rows and self.tabular:
            return self.say(none)
        return self.show(output or self.output, schema=f"nvcore.{name}/1", key=key, rows=rows, columns=columns, name=row, extra=extra)

    def section(self, offer: ConfigSection) -> Any:
        """The record of a plugin's section; see CommandIO.section."""
        from nvcore.config.sections import build

        return build(offer, self.configuration())

    def call(self, method: str, parameters: dict[str, Any] | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        """One call to the daemon; see CommandIO.call."""
        from nvcore.daemon.varlink import call

        return call(self.socket, method, parameters or {}, timeout=self.timeout if timeout is None else timeout)

    def stream(self, method: str, parameters: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """A call with `more`; see CommandIO.stream."""
        from nvcore.daemon.varlink import stream

        return stream(self.socket, method, parameters or {}, timeout=self.timeout, to=self.stdout.fileno())
