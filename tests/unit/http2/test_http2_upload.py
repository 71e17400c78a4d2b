"""The body of a stream: whole and in order at any pace of the backend, and small in memory however small its pieces."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.client.http2_exchange import StreamUpload
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import Route
from edge.dataplane.core.upload import Upload

PIECE = b"ab"
COUNT = 32 * 1024  # of them: a window of 64 KiB


class Exchange:
    """What an upload asks of its exchange and of its stream."""

    ended = False
    deadline = 0.0

    def __init__(self) -> None:
        self.worker = SimpleNamespace(limits=WorkerLimits())
        self.downstream = self
        self.routed = Route("r", b"*", b"/", cast(Any, None))

    def stop_reading(self) -> None:
        """The stream gives no more credit; what is under way comes all the same."""

    def start_reading(self) -> None:
        """It does again."""


class Backend:
    """A backend's end; each piece that is written to it fills it when it is `slow`."""

    def __init__(self, upload: Upload, slow: bool = False) -> None:
        self.pieces: list[bytes] = []
        self.ended = False
        self.slow = slow
        self._upload = upload
        upload.attach(cast(Any, self))

    def upload_begins(self) -> None:
        assert not self.pieces

    def upload(self, data: bytes) -> None:
        assert not self.ended
        self.pieces.append(data)
        if self.slow:
            self._upload.stop()

    def upload_ends(self) -> None:
        self.ended = True


def begun(length: int) -> StreamUpload:
    upload = StreamUpload(cast(Any, Exchange()), length)
    upload.limit = 1 << 20
    return upload


@pytest.mark.parametrize("slow", [False, True], ids=["no backend yet", "a slow backend"])
def test_small_pieces_that_wait_are_one(slow: bool) -> None:
    upload = begun(COUNT * len(PIECE))
    backend = Backend(upload, slow) if slow else None
    piece = bytearray(PIECE)
    tracemalloc.start()
    try:
        for left in range(COUNT - 1, -1, -1):
            upload.came(bytes(piece), not left)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * COUNT * len(PIECE)
    backend = backend or Backend(upload)
    upload.go()
    assert b"".join(backend.pieces) == PIECE * COUNT
    assert backend.ended
    assert len(backend.pieces) <= 2


@given(st.lists(st.sampled_from(["piece", "go", "again"]), max_size=40), st.booleans())
@settings(max_examples=200)
def test_the_body_is_whole_whatever_the_backends_do(events: list[str], slow: bool) -> None:
    sent = [b"%04d" % number for number in range(events.count("piece") + 1)]
    upload = begun(sum(map(len, sent)))
    backend, left = Backend(upload, slow), list(sent)
    for event in events:
        if event == "piece":
            upload.came(left.pop(0), not left)
        elif event == "go":
            upload.go()
        else:
            upload.detach()
            backend = Backend(upload, slow)
    upload.came(left.pop(0), True)
    backend.slow = False
    upload.go()
    assert b"".join(backend.pieces) == b"".join(sent)
    assert backend.ended
    assert upload.done
