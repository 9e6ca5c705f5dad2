"""`nvcore doctor`: every check of the running daemon; without one, what can be told from outside. Main thread."""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, Column, chosen, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.cli.context import Context

__all__ = ["command"]

_COLUMNS = (
    Column("severity", "SEVERITY"),
    Column("check", "CHECK"),
    Column("plugin", "PLUGIN"),
    Column("text", "FINDING"),
    Column("code", "CODE"),
    Column("remedy", "REMEDY"),
)


def command(argv: Sequence[str], context: Context) -> int:
    """Run every check. Exits 1 when one found an error, 5 when no daemon runs (after the checks that need none)."""
    given = parse(argv, OUTPUT_OPTIONS, words=(0, 0))
    output = chosen(given.values)
    code = 0
    from nvcore.api.errors import UnreachableError

    try:
        findings = context.call("io.nvcore.Host.Doctor", timeout=300.0)["findings"]
    except UnreachableError as error:
        findings, code = _outside(error), error.exit_code
    show(output, schema="nvcore.doctor/1", key="findings", rows=findings, columns=_COLUMNS, stream=context.stdout, name="text")
    return 1 if any(finding["severity"] == "error" for finding in findings) else code


def _outside(error: Exception) -> list[dict[str, Any]]:
    """Checks that need no daemon."""
    from nvcore.bus.pci import scan
    from nvcore.plugins.index import scan as plugin_scan

    def row(severity: str, check: str, text: str, code: str | None = None, remedy: str | None = None) -> dict[str, Any]:
        return {"severity": severity, "check": check, "plugin": "nvcore", "text": text, "code": code, "remedy": remedy}

    rows = [row("warning", "daemon", getattr(error, "what", str(error)), "NVC-8001", getattr(error, "remedy", None))]
    rows += [row("warning", "plugins", f"{problem.where}: {problem.what}", problem.code, problem.remedy) for problem in plugin_scan().problems]
    devices = scan()
    rows.append(row("note", "devices", f"{len(devices)} NVIDIA PCI functions on this machine", None, "nvcore devices"))
    return rows
