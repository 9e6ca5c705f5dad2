"""A firmware file in memory: what the parsers read in tests in place of a file on disk."""

from __future__ import annotations

from nvcore_fw_gsp.images.source import check_inside


class MemorySource:
    """See nvcore_fw_gsp.images.source.Source."""

    def __init__(self, data: bytes, name: str = "memory") -> None:
        self._data, self.name, self.size = data, name, len(data)

    def read(self, offset: int, size: int, what: str) -> bytes:
        check_inside(self, offset, size, what)
        return self._data[offset : offset + size]

    def read_into(self, offset: int, view: memoryview, what: str) -> None:
        view[:] = self.read(offset, len(view), what)

    def close(self) -> None: ...
