"""`nvcore devices`: NVIDIA functions on this machine's PCI bus. Needs neither daemon nor plugin. Main thread."""

from __future__ import annotations

from nvcore.bus.pci import scan
from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, Column, chosen, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvcore.cli.context import Context

__all__ = ["command"]

_COLUMNS = (
    Column("address", "ADDRESS"),
    Column("device_id", "DEVICE"),
    Column("driver", "DRIVER"),
    Column("power_state", "POWER"),
    Column("functions", "VFS", right=True),
    Column("source", "SOURCE", wide=True),
)


def command(argv: Sequence[str], context: Context) -> int:
    """NVIDIA functions on the PCI bus."""
    output = chosen(parse(argv, OUTPUT_OPTIONS, words=(0, 0)).values)
    rows = scan()
    if not rows and output in ("table", "wide"):
        context.say("no NVIDIA PCI functions on this machine")
        return 0
    show(output, schema="nvcore.devices/1", key="devices", rows=rows, columns=_COLUMNS, stream=context.stdout, name="address")
    return 0
