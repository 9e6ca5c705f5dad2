"""`nvcore run`: the daemon in the foreground, under a service manager or in a terminal.

The command line has re-executed itself isolated before it comes here (`nvcore.cli.main`). READY is sent last, STOPPING first. SIGTERM and
SIGINT stop it in order. Exit codes: 0, 7 when some plugin or device failed, 78 for a bad configuration. Main thread.
Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nvcore.api.errors import UsageError
from nvcore.cli.context import Context
from nvcore.cli.output import safe
from nvcore.config.places import state_dir
from nvcore.daemon.daemon import Daemon
from nvcore.locks import log_gate

_STOP_LIMIT: Final = 60
_MORE_TIME: Final = "EXTEND_TIMEOUT_USEC={}000000"
_PRIORITIES: Final = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}


class _Formatter(logging.Formatter):
    """Lines for a terminal or, with their priority in front, for a service manager; control characters escaped: parts of them may come
    from guests or firmware."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        mark = _PRIORITIES.get(record.levelno, "") if os.environ.get("JOURNAL_STREAM") else ""
        return "\n".join(mark + safe(line, False) for line in super().format(record).split("\n"))


def _gpu_tables(sources: list[str], version: str | None) -> dict[str, Any]:
    """Configuration tables from the command line."""
    if version is not None and not sources:
        raise UsageError("--firmware goes with --gpu", remedy="set `firmware` in the [[gpu]] table of the configuration")
    more = {"firmware": version} if version else {}
    return {"gpu": [{"source": source, **more} for source in sources]} if sources else {}


def run(context: Context) -> int:
    """Run until told to stop."""
    configuration = context.configuration(_gpu_tables(context.given.many("gpu"), context.given.text("firmware")))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(log_gate)
    logging.basicConfig(level=configuration.host.log_level.upper(), handlers=[handler], force=True)
    daemon = Daemon(configuration, context.selection(), socket=context.socket, state_dir=Path(configuration.host.state_dir or state_dir()))
    daemon.stop_on(signal.SIGTERM, signal.SIGINT)
    notify(_MORE_TIME.format(30 + 300 * bool(configuration.gpus)))  # booting firmware may take minutes
    try:
        daemon.start()
        if daemon.state == "running":
            _announce(context, daemon)
        daemon.stop_requested(None)
        context.say("nvcore: stopping")
        code = 7 if daemon.partial else 0
    finally:
        notify("STOPPING=1", _MORE_TIME.format(_STOP_LIMIT + 15))
        hanging = daemon.stop(_STOP_LIMIT)
        for name in hanging:
            context.say(f"nvcore: abandoned, it did not end: {name}")
    if hanging:
        logging.shutdown()
        os._exit(7)  # threads that hang must not keep the process
    return code


def notify(*lines: str) -> None:
    """Tell the service manager, if it is still there, as in `notify("READY=1", "STATUS=two GPUs")`, in one datagram to $NOTIFY_SOCKET."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)


def _announce(context: Context, daemon: Daemon) -> None:
    """Say that it is ready, and of each GPU that does not run why."""
    gpus = daemon.host.summary()
    down = [gpu for gpu in gpus if gpu["state"] != "running"]
    for gpu in down:
        context.say(f"nvcore: {gpu['address'] or gpu['source']} {gpu['state']}: {gpu['cause'] or 'not up yet'} ({gpu['code'] or '-'})")
    broken = ", ".join(plugin.name for plugin in daemon.plugin_host.plugins if plugin.broken)
    status = f"{len(gpus) - len(down)} of {len(gpus)} GPUs running" + (f", plugins in trouble: {broken}" if broken else "")
    context.say(f"nvcore: ready, {status}, socket {daemon.socket}")
    notify("READY=1", f"STATUS={status}")
