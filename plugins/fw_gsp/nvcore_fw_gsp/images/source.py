"""Where the bytes of a firmware file come from: a file on disk, read piece by piece and never beyond the end.

Owns one descriptor each, closed by `close` or the `with` block. An interrupted or short read is repeated (a signal is never "missing"); a
file that shrinks while it is read is an error. Any thread: reads carry their own offset.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Protocol

from nvcore_fw_gsp.images.errors import FirmwareFormatError, FirmwareMissing, FirmwareUnreadable

__all__ = ["FileSource", "Source"]

_MAX_PIECE: Final = 16 << 20  # one header, section or small ucode; the big image goes through read_into


class Source(Protocol):
    """Bytes with a name and a size."""

    name: str
    size: int

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Exactly `size` bytes at `offset`. Raises FirmwareFormatError naming `what` when they are not inside."""
        ...

    def read_into(self, offset: int, view: memoryview, what: str) -> None:
        """Fill `view` from `offset`, without a copy in between."""
        ...

    def close(self) -> None:
        """Release what is held. Idempotent."""
        ...


def check_inside(source: Source, offset: int, size: int, what: str) -> None:
    """Raise FirmwareFormatError unless [offset, offset + size) lies inside the source."""
    if offset < 0 or size < 0 or offset + size > source.size:
        raise FirmwareFormatError(
            f"{what} lies outside the file",
            expected=f"inside {source.size} bytes",
            seen=f"{size} bytes at {offset:#x}",
            where=source.name,
            remedy="the file is cut off or is no firmware of this kind: fetch it again",
        )


class FileSource:
    """A file on disk."""

    __slots__ = ("_fd", "name", "size")

    def __init__(self, path: str) -> None:
        self.name = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _translate(error, path) from None
        self.size = os.fstat(self._fd).st_size

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, offset: int, size: int, what: str) -> bytes:
        """See Source. Pieces over 16 MiB are a format error: nothing that is read whole is that big."""
        check_inside(self, offset, size, what)
        if size > _MAX_PIECE:
            raise FirmwareFormatError(f"{what} is implausibly big", expected=f"at most {_MAX_PIECE} bytes", seen=size, where=self.name)
        data = bytearray(size)
        self.read_into(offset, memoryview(data), what)
        return bytes(data)

    def read_into(self, offset: int, view: memoryview, what: str) -> None:
        """See Source."""
        check_inside(self, offset, len(view), what)
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise _translate(error, self.name) from None
            if count == 0:
                raise FirmwareUnreadable(f"the file became shorter while {what} was read", where=self.name, remedy="try again")
            done += count

    def close(self) -> None:
        """See Source."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _translate(error: OSError, path: str) -> FirmwareMissing | FirmwareUnreadable:
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return FirmwareMissing(f"no file {path}", seen=reason, remedy="nvcore firmware list shows what is there")
    name = errno.errorcode.get(error.errno or 0, "?")
    remedy = (
        "check the owner and the mode of the file" if error.errno in (errno.EACCES, errno.EPERM) else "check the medium, then try again"
    )
    return FirmwareUnreadable("the firmware file cannot be read", seen=f"{name}: {reason}", where=path, remedy=remedy)
