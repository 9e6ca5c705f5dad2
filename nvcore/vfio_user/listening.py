"""A listening unix socket at a path: its length, what a dead server left there, and its mode. Standard library; any thread.

Source: unix(7): `sun_path` holds 107 bytes and its NUL, and a longer path must be refused, not cut; connecting to a socket that nobody
serves is refused, and so is connecting to what is no socket at all.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Final

from nvcore.api.errors import ConflictError, UsageError

__all__ = ["MAX_PATH", "listen"]

MAX_PATH: Final = 107
"""Bytes of a path that fit into a socket's address."""


def listen(path: str, *, mode: int = 0o600, backlog: int = 1) -> socket.socket:
    """A socket that listens at `path`, with that mode from the first moment. A stale one is replaced.

    Raises UsageError for a path that is too long or where no socket can be made (no such folder, no right), ConflictError for one that
    somebody serves or where something else lies. The caller unlinks it in the end.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise UsageError(f"socket path is too long: {path}", expected=f"at most {MAX_PATH} bytes", seen=length, remedy="shorten it")
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        old = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(backlog)
    except OSError as problem:
        listener.close()
        raise UsageError(
            f"no socket can be made at {path}", expected="a folder that exists and may be written to", seen=problem.strerror
        ) from problem
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    try:
        kind = os.lstat(path).st_mode
    except OSError:  # nothing there, or nothing that we may see: making the socket tells
        return
    if not stat.S_ISSOCK(kind):
        raise ConflictError(f"{path} is in the way", expected="a free path or a stale socket", seen="no socket", remedy="remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except (BlockingIOError, TimeoutError):  # its queue is full: somebody listens
            raise ConflictError(f"{path} is served by another process", remedy="stop it, or choose another path") from None
        except OSError as error:
            expected, remedy = "a free path or a stale socket", "remove it, or choose another path"
            raise ConflictError(f"{path} is in the way", expected=expected, seen=error.strerror, remedy=remedy) from error
        else:
            raise ConflictError(f"{path} is served by another process", remedy="stop it, or choose another path")
