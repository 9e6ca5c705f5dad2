"""`nvcore run`: the daemon in the foreground, under a service manager or in a terminal.

Re-executes itself isolated first: a `*.dist-info` in the current folder or on PYTHONPATH must not become code in a daemon. READY is sent
last. SIGTERM and SIGINT stop it in order. Exit codes: 0, 7 when some plugin or device failed, 78 for a bad configuration. Main thread.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.errors import ConfigError, UsageError
from nvcore.daemon.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvcore.cli.context import Context

__all__ = ["command"]

_STOP_LIMIT: Final = 60.0
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_HELP: Final = """usage: nvcore run [--gpu SOURCE]... [--firmware VERSION] [--config FILE] [--only NAMES] [-p no:NAME] [--no-plugins]

Start the host daemon in the foreground. --gpu names a device (softgpu:ga100?vram=40G, pci:0000:41:00.0) and replaces the configured ones;
--firmware pins the version for those. It is ready when it says so, and ends at SIGTERM, SIGINT or `nvcore stop`.
"""


class _Formatter(logging.Formatter):
    """key=value lines; under a service manager with its priority prefix."""

    _PRIORITY: Final = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}

    def __init__(self, managed: bool) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._managed = managed

    def format(self, record: logging.LogRecord) -> str:
        """One line, control characters escaped: parts of it may come from guests or firmware."""
        from nvcore.cli.output import safe

        text = "\n".join(safe(line, False) for line in super().format(record).split("\n"))
        return self._PRIORITY.get(record.levelno, "") + text if self._managed else text


def _isolate(argv: Sequence[str], context: Context) -> None:
    """Become `python -I -m nvcore …`, unless this is it."""
    if sys.flags.isolated:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-m", "nvcore", *sys.argv[1:]])


def _log_to_stderr(level: str) -> None:
    from nvcore.locks import log_gate

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(managed=bool(os.environ.get("JOURNAL_STREAM"))))
    handler.addFilter(log_gate)
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)


def _tables(options: Any) -> dict[str, Any]:
    """Configuration tables from the command line."""
    sources = options.many("gpu")
    version = options.text("firmware")
    if version is not None and not sources:
        raise UsageError("--firmware goes with --gpu", remedy="set `firmware` in the [[gpu]] table of the configuration")
    if not sources:
        return {}
    return {"gpu": [{"source": source, **({"firmware": version} if version else {})} for source in sources]}


def command(argv: Sequence[str], context: Context) -> int:
    """Run until told to stop."""
    from nvcore.cli.args import parse
    from nvcore.config.files import load

    options = parse(list(argv), {"--gpu": "gpu*", "--firmware": "firmware", "--help": "help?", "-h": "help?"})
    if options.flag("help"):
        context.out(_HELP)
        return 0
    if options.words:
        raise UsageError(f"nvcore run: unexpected {options.words[0]!r}", remedy="see `nvcore run --help`")
    _isolate(argv, context)
    try:
        configuration = load(context.config_path, command_line=_tables(options))
        context.use(configuration)
    except ConfigError as error:
        context.say(f"error: {error}")
        return error.exit_code
    _log_to_stderr(configuration.host.log_level)
    return _run(context, configuration)


def _run(context: Context, configuration: Any) -> int:
    from nvcore.config.places import state_dir
    from nvcore.daemon.daemon import Daemon

    notifier = Notifier()
    daemon = Daemon(configuration, context.selection(), socket=context.socket, state_dir=Path(configuration.host.state_dir or state_dir()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop_requested.set())
    notifier.extend(30 + 300 * bool(configuration.gpus))  # booting firmware may take minutes
    code = 0
    try:
        daemon.start()
        running = sum(gpu["state"] == "running" for gpu in daemon.gpus())
        status = f"{running} of {len(configuration.gpus)} GPUs running"
        context.say(f"nvcore: ready, {status}, socket {daemon.socket}")
        notifier.ready(status)
        while not daemon.stop_requested.wait(3600):
            pass
        code = 7 if daemon.partial else 0
        context.say("nvcore: stopping")
    except ConfigError as error:
        context.say(f"error: {error}")
        code = error.exit_code
    finally:
        notifier.stopping()
        notifier.extend(_STOP_LIMIT + 15)
        hanging = daemon.stop(_STOP_LIMIT)
        for name in hanging:
            context.say(f"nvcore: abandoned, it did not end: {name}")
    if hanging:
        logging.shutdown()
        os._exit(7)  # threads that hang must not keep the process
    return code
