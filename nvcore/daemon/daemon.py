"""The daemon as an object: plugin host, core host and control socket, started in one order and stopped in the other.

Owns those three and the state directory's lock: the daemon is the only writer of state. Built by `nvcore.daemon.run`; its `HostView` is
what plugins' services and observers get. Runs on the main thread; control calls come in on the socket's threads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvcore import __version__
from nvcore.api.errors import ConflictError, UsageError
from nvcore.api.offers import InterfaceOffer
from nvcore.daemon.interfaces import SETS, core_interfaces, deny_state, panels
from nvcore.daemon.server import ControlServer
from nvcore.gpu.settings import GpuSettings, HostSettings
from nvcore.host import Host
from nvcore.hostlib.describe import describe_event
from nvcore.locks import open_fd
from nvcore.plugins.host import PluginHost

if TYPE_CHECKING:
    from nvcore.config.model import Configuration
    from nvcore.plugins.select import Selection


RECENT: Final = 20  # events in a description
_log = logging.getLogger("nvcore.daemon")


class Daemon:
    """One running `nvcore run`. socket: path of the control socket; state_dir: folder of what survives."""

    def __init__(self, configuration: Configuration, selection: Selection, *, socket: str, state_dir: Path) -> None:
        self.configuration, self.selection, self.socket, self.state_dir = configuration, selection, socket, state_dir
        self.state = "starting"
        self.started_at, self._began = time.time(), time.monotonic()
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.plugin_host = PluginHost("daemon", configuration=configuration, state_dir=state_dir)
        self.host = Host()
        self._server = ControlServer(socket, group=configuration.host.group, version=__version__)
        self._lock_fd: int | None = None

    # start and stop, on the main thread

    def start(self) -> None:
        """Plugins, socket, GPUs, observers, in this order; `state` is then "running", or "stopping" where a stop came before. Raises what
        makes the daemon unable to serve; a GPU that fails is not that."""
        self._take_state_dir()
        self.plugin_host.load(self.selection)
        self.host = self._make_host()
        for offer in (*core_interfaces(self), *self.plugin_host.collect("nvcore_control_interfaces")):
            try:
                self._server.add(offer)
            except Exception as error:  # isolation boundary: hook
                what = f"interface {offer.name} is not served: {error}"
                self.plugin_host.plugin(offer.plugin).end("failed", "NVC-1108", what, f"report it to the authors of {offer.plugin}")
        self._server.start()
        self.host.start(wait=False)
        deadline = time.monotonic() + self.host.settings.boot
        under_way = ("found", "identified", "booting")  # in any other state that is not running a GPU says why
        while time.monotonic() < deadline and any(gpu.state.name in under_way for gpu in self.host.gpus):
            if self.stop_requested(0.02):  # seconds between two looks
                self.state = "stopping"
                return
        self.plugin_host.start(self)
        self.state = "running"

    def _take_state_dir(self) -> None:
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = open_fd(self.state_dir / "lock", os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "stop it, or set [host] state_dir"
            raise ConflictError("another daemon uses this state directory", where=str(self.state_dir), remedy=remedy) from None
        except OSError as error:
            remedy = "set [host] state_dir or STATE_DIRECTORY to a folder that this user may write to"
            raise UsageError("the state directory cannot be used", where=str(self.state_dir), seen=error.strerror, remedy=remedy) from error

    def _make_host(self) -> Host:
        gpus, scale, collect = self.configuration.gpus, self.configuration.host.time_scale, self.plugin_host.collect
        settings = {gpu.source: GpuSettings(version=gpu.firmware, backend=gpu.backend, time_scale=scale) for gpu in gpus}
        buses, clients = collect("nvcore_buses"), collect("nvcore_client_drivers")
        backends = collect("nvcore_firmware_backends", contested=True)  # those that fight over a chip, the core names for the GPU
        records = {offer.name: self.plugin_host.info(offer.plugin).config for offer in clients}
        config = HostSettings(gpus=settings, clients=records, quiesce=5.0 * scale, invalidate=2.0 * scale)
        return Host(settings, buses=buses, backends=backends, clients=clients, state_dir=self.state_dir, config=config)

    def stop(self, timeout: float) -> list[str]:
        """Everything down in reverse order; the names of what hung. Also after a start that failed half-way."""
        self.state = "stopping"
        errors = self.plugin_host.teardown()
        for error in errors.exceptions if errors is not None else ():
            _log.error("%s", error)
        hanging = self.host.stop(timeout)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        self._server.stop()  # last: who waits for the socket to go may start the next daemon at once
        return hanging

    def request_stop(self) -> None:
        """Have the main thread stop everything. Any thread."""
        os.write(self._wake[1], b"s")

    def stop_on(self, *signals: int) -> None:
        """Take a signal for such a request. Main thread.

        The kernel may hand a signal to any thread, which leaves the main thread asleep and Python's handler uncalled; but the interpreter
        writes to the pipe from whichever thread it is.
        """
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)

    def stop_requested(self, timeout: float | None) -> bool:
        """Whether a stop is requested, now or within `timeout` seconds; None: for ever."""
        return bool(select.select([self._wake[0]], [], [], timeout)[0])

    @property
    def partial(self) -> bool:
        """Whether some plugin or device failed: exit code 7. While the daemon starts, a GPU that has not got there is no failure."""
        states = {gpu["state"] for gpu in self.host.summary()} - {"running"}
        return self.plugin_host.partial() or bool(states & {"failed", "lost"} if self.state == "starting" else states)

    # what plugins and the control socket may ask (nvcore.api.control.HostView)

    def describe(self) -> dict[str, Any]:
        """`io.nvcore.Host.Describe`."""
        now, states = time.monotonic(), self.plugins()
        usable = {state["name"] for state in states if state["state"] in ("registered", "started")}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "uptime_s": round(now - self._began, 3),
            "state": self.state,
            "partial": self.partial,
            "sets": [name for name, plugins in SETS.items() if plugins == usable],
            "plugins_started": sum(state["state"] == "started" for state in states),
            "plugins_selected": sum(bool(state["selected_by"]) or state["state"] not in ("disabled", "found") for state in states),
            "deny": deny_state(tuple(self.configuration.plugins.deny), int(now // 60)),
            "gpus": self.gpus(),
            "panels": panels(self.plugin_host),
            "events": self.events()[-RECENT:],
        }

    def gpus(self) -> list[dict[str, Any]]:
        """`io.nvcore.Gpu.List`."""
        return [{**row, "number": number} for number, row in enumerate(self.host.summary())]

    def plugins(self) -> list[dict[str, Any]]:
        """`io.nvcore.Plugin.List`."""
        return self.plugin_host.states()

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The event ring behind sequence number `after`."""
        return [describe_event(event) for event in self.host.events.since(after)]

    def stop_plugin(self, name: str) -> dict[str, Any]:
        """Have a plugin's clients leave, then stop it. Raises NotFoundError, NotRunningError, ConflictError while a GPU runs on it."""
        plugin = self.plugin_host.plugin(name)
        if plugin.state in ("registered", "started"):
            self.host.withdraw(plugin.name)
        self._server.stopped.update(offer.name for offer in self.plugin_host.stop(name) if isinstance(offer, InterfaceOffer))
        self.host.events.publish("plugin", f"plugin {plugin.name} stopped by the operator", action="stopped")
        return plugin.as_dict()
