"""The object tree: clients, and under each its own handles.

Owns parents, children and their order of destruction. Knows no control and no message. Every handle came from the driver: unknown, used
and foreign ones are answered with a status, never with an exception. Runs on the caller's thread under the device's lock.
Source: open-gpu-kernel-modules 570.144, RESSERV (rs_server.c, rs_client.c) as far as a client sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nvcore_softgpu.gsp.conventions import MAX_OBJECTS
from nvcore_softgpu.gsp.status import Status

__all__ = ["Client", "Node", "Tree"]


class Node:
    """One object. `data` holds what its kind needs (a channel, an address space, …)."""

    __slots__ = ("children", "class_id", "client", "data", "handle", "kind", "parent")

    def __init__(self, client: Client | None, handle: int, class_id: int, kind: str, parent: Node | None, data: object = None) -> None:
        """parent: None for a client only."""
        self.client = client
        self.handle = handle
        self.class_id = class_id
        self.kind = kind
        self.parent = parent
        self.data = data
        self.children: list[Node] = []

    def below(self) -> Iterator[Node]:
        """Everything under it, children before their parents, last made first."""
        for child in reversed(self.children):
            yield from child.below()
            yield child


class Client:
    """One root and its handles. `fixed` handles are the GSP's own: nobody may free them."""

    __slots__ = ("fixed", "nodes", "root")

    def __init__(self, handle: int, class_id: int) -> None:
        """An empty client; its root has the same handle."""
        self.root = Node(self, handle, class_id, "client", None)
        self.nodes: dict[int, Node] = {handle: self.root}
        self.fixed: set[int] = set()


class Tree:
    """All clients of the GPU."""

    __slots__ = ("_count", "_on_free", "clients")

    def __init__(self, on_free: Callable[[Node], None]) -> None:
        """on_free: called for each object that goes, children first."""
        self.clients: dict[int, Client] = {}
        self._count = 0
        self._on_free = on_free

    @property
    def full(self) -> bool:
        """Whether the firmware has no memory for another object."""
        return self._count >= MAX_OBJECTS

    def add_client(self, handle: int, class_id: int) -> int:
        """A new root. Answers a status."""
        if handle == 0:
            return Status.INVALID_OBJECT_HANDLE
        if handle in self.clients:
            return Status.DUPLICATE_NAME
        self.clients[handle] = Client(handle, class_id)
        self._count += 1
        return Status.OK

    def find(self, client: int, handle: int) -> tuple[int, Node | None]:
        """(status, object)."""
        owner = self.clients.get(client)
        if owner is None:
            return Status.INVALID_CLIENT, None
        node = owner.nodes.get(handle)
        return (Status.OK, node) if node is not None else (Status.OBJECT_NOT_FOUND, None)

    def room_for(self, client: int, parent: int, handle: int, parents: tuple[str, ...]) -> tuple[int, Node | None]:
        """Whether `handle` may be made under `parent`: (status, the parent)."""
        owner = self.clients.get(client)
        if owner is None:
            return Status.INVALID_CLIENT, None
        if handle == 0:
            return Status.INVALID_OBJECT_HANDLE, None
        if handle in owner.nodes:
            return Status.INVALID_OBJECT_NEW, None
        node = owner.nodes.get(parent)
        if node is None or node.kind not in parents:
            return Status.INVALID_OBJECT_PARENT, None
        return Status.OK, node

    def add(self, parent: Node, handle: int, class_id: int, kind: str, data: object = None) -> Node:
        """Make an object; `room_for` has said yes."""
        client = parent.client
        assert client is not None
        node = Node(client, handle, class_id, kind, parent, data)
        parent.children.append(node)
        client.nodes[handle] = node
        self._count += 1
        return node

    def free(self, client: int, handle: int) -> int:
        """Destroy an object and what hangs under it. Answers a status."""
        status, node = self.find(client, handle)
        if node is None:
            return status
        owner = self.clients[client]
        if handle in owner.fixed:
            return Status.INVALID_OBJECT
        for gone in [*node.below(), node]:
            self._on_free(gone)
            del owner.nodes[gone.handle]
            self._count -= 1
        if node.parent is None:
            del self.clients[client]
        else:
            node.parent.children.remove(node)
        return Status.OK

    def free_all(self) -> None:
        """Destroy everything but the GSP's own objects."""
        for handle, client in list(self.clients.items()):
            if handle not in client.fixed:
                self.free(handle, handle)
                continue
            for own in [node.handle for node in client.root.below() if node.handle not in client.fixed]:
                self.free(handle, own)

    def nodes(self, kind: str) -> Iterator[Node]:
        """Every object of one kind."""
        for client in self.clients.values():
            for node in client.nodes.values():
                if node.kind == kind:
                    yield node

    def census(self) -> dict[str, int]:
        """Live objects by kind, the GSP's own left out."""
        counts: dict[str, int] = {}
        for client in self.clients.values():
            for node in client.nodes.values():
                if node.handle not in client.fixed:
                    counts[node.kind] = counts.get(node.kind, 0) + 1
        return dict(sorted(counts.items()))
