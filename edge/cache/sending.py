"""Bodies of stored responses that are being sent to somebody, and whether the table still counts them.

One rule: bytes in memory are counted once: in the stored response as long as that is in the table, and set aside for
as long as somebody is sent them after it has gone. All copies of a response (stale, validated) share one body.
"""

from __future__ import annotations

Chunks = tuple[bytes, ...]


class _Body:
    __slots__ = ("bytes", "chunks", "count", "gone")

    def __init__(self, chunks: Chunks, gone: bool) -> None:
        self.chunks = chunks  # held, so that its id() stays its own
        self.bytes = sum(map(len, chunks))
        self.count = 0
        self.gone = gone


class SentBodies:
    """How often each body is being sent, by the identity of its chunks.

    Each call returns how many bytes are to be set aside for it; a negative number is to be given back.
    """

    __slots__ = ("_bodies",)

    def __init__(self) -> None:
        self._bodies: dict[int, _Body] = {}

    def __bool__(self) -> bool:
        return bool(self._bodies)

    def begin(self, chunks: Chunks, stored: bool) -> int:
        """One more client is sent the body. `stored`: the table has it."""
        body = self._bodies.get(id(chunks))
        if body is None:
            body = self._bodies[id(chunks)] = _Body(chunks, not stored)
        body.count += 1
        return body.bytes if body.gone and body.count == 1 else 0

    def end(self, chunks: Chunks) -> int:
        """One client has all of the body, or has left."""
        body = self._bodies[id(chunks)]
        body.count -= 1
        if body.count:
            return 0
        del self._bodies[id(chunks)]
        return -body.bytes if body.gone else 0

    def dropped(self, chunks: Chunks) -> int:
        """The table does not have the body any more."""
        body = self._bodies.get(id(chunks))
        if body is None or body.gone:
            return 0
        body.gone = True
        return body.bytes

    def stored(self, chunks: Chunks) -> int:
        """The table has the body again."""
        body = self._bodies.get(id(chunks))
        if body is None or not body.gone:
            return 0
        body.gone = False
        return -body.bytes
