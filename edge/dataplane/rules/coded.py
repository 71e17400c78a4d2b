"""Stored responses in the codings of their route: made once for each, kept beside what the origin sent.

One rule: what is stored as it came decides everything (fresh, purged, varies); a coded form stands for exactly one such
response, told by when it was received, and is made again when that has changed. Small bodies are coded at once, others
in a thread, once however many wait; what cannot be coded just now goes as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from edge.cache.stored import Stored, charge
from edge.dataplane.rules.compression import Compression, coded_head, varied
from edge.dataplane.rules.steps import Waiting
from edge.http.message import Fields

AT_ONCE = 64 * 1024  # a larger body takes longer than the loop may be held
LARGEST = 16 * 1024 * 1024  # a larger one goes as it is
WAITING = 64  # bodies in threads, and before them
REMEMBERED = 8192  # responses that are not to be coded

Serve = Callable[[Stored], None]
Exchange = Any  # `core.exchange.Exchange`, and `core.store.Store`: both stand above
Store = Any


class CodedForms:
    """What one route keeps besides the store: which responses stay as they are, and which are being coded."""

    def __init__(self, rule: Compression) -> None:
        self.rule = rule
        self._plain: dict[int, float] = {}  # hash of key and variant → received_at
        self._pending: dict[bytes, list[tuple[Waiting, Serve, Stored]]] = {}

    def fast(self, store: Store, stored: Stored, fields: Fields) -> Stored | None:
        """For a plain GET of a response that answers anyone: what to send, None when that takes more."""
        coding = self.rule.choose(fields.joined(b"accept-encoding"))
        key = stored.key
        if self._plain.get(hash(key)) == stored.received_at:
            return stored
        if coding is None:
            return None
        return self._kept(store, stored, b"%b z:%b:" % (key, coding.encode()))

    def _kept(self, store: Store, stored: Stored, key: bytes) -> Stored | None:
        found = store.index.get(key)
        if found is None or found.sole is None or found.sole.received_at != stored.received_at:
            return None
        kept: Stored = found.sole
        return kept

    def represent(self, exchange: Exchange, stored: Stored, serve: Serve) -> Stored | None:
        """The form of a stored response for this request; None: `serve` is called with it later."""
        store = exchange.worker.store
        assert store is not None
        mark = hash(stored.key if not stored.vary else b"%b %b" % (stored.key, stored.variant))
        if self._plain.get(mark) == stored.received_at:
            return stored
        coding = self.rule.wanted(exchange)
        key = b"" if coding is None else b"%b z:%b:%b" % (stored.key, coding.encode(), stored.variant)
        kept = self._kept(store, stored, key) if key else None
        if kept is not None:
            return kept
        fields = stored.head.fields
        if not self.rule.suits(stored.status, fields, stored.length) or stored.length > LARGEST:
            if len(self._plain) >= REMEMBERED:
                self._plain.clear()
            self._plain[mark] = stored.received_at
            return stored
        if coding is None:
            return changed(stored, varied(stored.wire, fields))
        if stored.file is None and self.rule.is_quick and stored.length <= AT_ONCE:
            return self._keep(store, stored, key, coding, self.rule.whole(coding, b"".join(stored.chunks)))
        if key not in self._pending and len(self._pending) >= WAITING:
            return changed(stored, varied(stored.wire, fields))
        return self._in_thread(store, exchange, stored, (key, coding), serve)

    def _in_thread(
        self, store: Store, exchange: Exchange, stored: Stored, form: tuple[bytes, str], serve: Serve
    ) -> Stored | None:
        waiting = (Waiting(exchange), serve, stored)
        key, coding = form
        if key in self._pending:
            self._pending[key].append(waiting)
            return None
        opened = None
        if stored.file is not None:
            opened = None if store.disk is None else store.disk.open_body(stored)
            if opened is None:
                exchange.follower = None
                return changed(stored, varied(stored.wire, stored.head.fields))  # its sender tells that it is gone
        self._pending[key] = [waiting]

        def work() -> bytes:
            if opened is None:
                return self.rule.whole(coding, b"".join(stored.chunks))
            try:
                count = len(opened.file.sums) // 4
                return self.rule.whole(coding, b"".join(opened.piece(number, True) for number in range(count)))
            finally:
                opened.close()

        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(lambda done: self._done(store, stored, form, done))
        return None

    def _done(self, store: Store, stored: Stored, form: tuple[bytes, str], done: asyncio.Future[bytes]) -> None:
        key, coding = form
        waiting = self._pending.pop(key)
        if done.cancelled() or done.exception() is not None:  # what is wrong with the body is for its sender to find
            made = changed(stored, varied(stored.wire, stored.head.fields))
        else:
            made = self._keep(store, stored, key, coding, done.result())
        for step, serve, own in waiting:
            fits = own.received_at == made.received_at
            step.go_on = partial(serve, made if fits else own)
            step.resume()

    def _keep(self, store: Store, stored: Stored, key: bytes, coding: str, body: bytes) -> Stored:
        """The coded form, also put beside what it was made from. With nothing gained it is the body as it came."""
        fields = stored.head.fields
        if len(body) >= stored.length and stored.file is None:
            made = changed(stored, varied(stored.wire, fields))
        else:
            head = coded_head(stored.wire, fields, coding)
            made = changed(stored, head + b"Content-Length: %d\r\n" % len(body))
            made.chunks, made.length, made.file = (body,), len(body), None
        made.key = key
        made.vary, made.etag, made.part = (), None, None
        made.simple = False
        made.size_bytes = charge(made)
        store.index.put(made, store.clock(), store.purge_log.now_seq(), min_uses=1)
        return made


def changed(stored: Stored, wire: bytes) -> Stored:
    """A copy of the stored response with other field lines."""
    made = stored.copy()
    made.wire = wire
    return made
