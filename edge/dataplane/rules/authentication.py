"""`auth`: who asks. What every kind has in common, passwords (`basic`, a file of htpasswd with bcrypt or argon2), and
certificates of clients (`client_certificate`), which the handshake verified.

One rule: closed unless proved open. Whatever fails on the way to a verdict is no verdict: 401 where the client can do
better, 503 where it cannot. Hashing is never done on the loop; verdicts are remembered under a keyed digest of what the
client sent, a bounded number for a bounded time, and secrets are compared by functions that take the same time always.
"""

from __future__ import annotations

import os
import re
from asyncio import get_running_loop
from base64 import b64decode
from binascii import Error as NotBase64
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from edge.dataplane.rules.passwords import PasswordFile
from edge.dataplane.rules.steps import Waiting
from edge.errors import Denied, NoBackend
from edge.http.message import Line

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

KNOWN_S = 300.0  # how long a password that was right stays known
WRONG_S = 10.0  # and one that was wrong
REMEMBERED = 4096
PENDING = 64  # clients that wait for a hash, and before them
T = TypeVar("T")


class Identity(NamedTuple):
    """Who asks, what a backend is told of it, and what keeps the responses to it from everybody else's."""

    name: bytes
    lines: tuple[Line, ...]
    apart: bytes


def identity(name: bytes, lines: tuple[Line, ...] = (), presented: bytes = b"") -> Identity:
    """An identity. `presented` is what else may have decided who it is."""
    told = b"\n".join([name, *(b"%b:%b" % line for line in lines), presented])
    return Identity(name, lines, b" u:%b" % blake2b(told, digest_size=16).hexdigest().encode())


class Unauthorized(Denied):
    """401; `lines` have the WWW-Authenticate field."""

    status = 401

    def __init__(self, detail: str, challenge: bytes) -> None:
        super().__init__(detail)
        self.lines = b"WWW-Authenticate: %b\r\n" % challenge


class Verdicts(Generic[T]):
    """What was found out before, by what the client sent. Only a keyed digest of that is kept here. Heads of requests
    that are remembered as they came (`http.memo`) are told their verdict: for those no digest is made."""

    __slots__ = ("_found", "_key")

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._found: dict[bytes, tuple[T, float]] = {}

    def mark(self, secret: bytes) -> bytes:
        """The digest under which a secret is remembered."""
        return blake2b(secret, key=self._key, digest_size=16).digest()

    def get(self, mark: bytes) -> T | None:
        """The remembered verdict, if it has not expired."""
        found = self._found.get(mark)
        if found is None:
            return None
        if found[1] < monotonic():
            del self._found[mark]
            return None
        return found[0]

    def note(self, exchange: StepExchange, mark: bytes) -> None:
        """Tell the request's head what `get` has found: heads that come again are mostly one object (`http.memo`)."""
        exchange.block.known = (self._key, *self._found[mark])

    def noted(self, exchange: StepExchange) -> T | None:
        """What the head was told by these verdicts, as long as it holds."""
        known = exchange.block.known
        if known is None or known[0] is not self._key or known[2] <= exchange.started_at:
            return None
        verdict: T = known[1]
        return verdict

    def put(self, mark: bytes, verdict: T, seconds: float) -> None:
        """Remember a verdict for `seconds`; the oldest is dropped when the memory is full."""
        if len(self._found) >= REMEMBERED:
            del self._found[next(iter(self._found))]
        self._found[mark] = (verdict, monotonic() + seconds)


def admit(exchange: StepExchange, who: Identity) -> None:
    """The client is known: what it gets is kept apart from what anybody else gets."""
    exchange.identity, exchange.granted = who.name, who.lines
    exchange.apart += who.apart


_hashing = ThreadPoolExecutor(2, "password")


class BasicAuth:
    """`auth.basic` of a route."""

    name = "auth"

    def __init__(self, passwords: PasswordFile, realm: str) -> None:
        self._passwords = passwords
        self._challenge = b'Basic realm="%b", charset="UTF-8"' % realm.encode()
        self._verdicts: Verdicts[Identity | bool] = Verdicts()  # False: wrong
        self._pending: dict[bytes, list[Waiting]] = {}

    def apply(self, exchange: StepExchange) -> Waiting | None:
        """Raises Unauthorized; NoBackend (503) when too many passwords wait to be checked."""
        known = self._verdicts.noted(exchange)
        if isinstance(known, Identity):
            admit(exchange, known)
            return None
        given = exchange.block.fields.joined(b"authorization")
        if given is None:
            raise self._refused(exchange, "credentials are missing")
        mark = self._verdicts.mark(given)
        verdict = self._verdicts.get(mark)
        if isinstance(verdict, Identity):
            self._verdicts.note(exchange, mark)
            admit(exchange, verdict)
            return None
        pair = None if verdict is False else credentials(given)
        if pair is None:
            raise self._refused(exchange, "credentials are not accepted")
        return self._ask(exchange, mark, pair)

    def _refused(self, exchange: StepExchange, why: str) -> Unauthorized:
        exchange.reason = "unauthorized"
        return Unauthorized(why, self._challenge)

    def _ask(self, exchange: StepExchange, mark: bytes, pair: tuple[bytes, bytes]) -> Waiting:
        waiting = Waiting(exchange)
        if mark in self._pending:
            self._pending[mark].append(waiting)
            return waiting
        if len(self._pending) >= PENDING:
            exchange.follower = None
            exchange.reason = "unauthorized"
            raise NoBackend("too many passwords to check")
        self._pending[mark] = [waiting]
        user, password = pair
        future = get_running_loop().run_in_executor(_hashing, self._passwords.check, user, password)
        future.add_done_callback(lambda done: self._done(mark, user, done))
        return waiting

    def _done(self, mark: bytes, user: bytes, done: Any) -> None:
        waiting = self._pending.pop(mark)
        right = not done.cancelled() and done.exception() is None and done.result() is True
        self._verdicts.put(mark, identity(user) if right else False, KNOWN_S if right else WRONG_S)
        for each in waiting:
            if right:
                admit(each.exchange, identity(user))
                each.resume()
            else:
                each.resume(self._refused(each.exchange, "credentials are not accepted"))

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`; no password is checked."""
        given = asked.block.fields.joined(b"authorization")
        pair = None if given is None else credentials(given)
        if pair is None:
            return "401: no credentials"
        return f"checks the password of {pair[0].decode('utf-8', 'replace')!r}"


class CertificateAuth:
    """`auth.client_certificate` of a route."""

    name = "auth"

    def apply(self, exchange: StepExchange) -> None:
        """Raises Denied. A certificate may have ended since its connection was made."""
        found = exchange.downstream.certificate
        if found is None or found.ends_at <= exchange.worker.now:
            exchange.reason = "no-certificate"
            raise Denied("a client certificate is needed")
        admit(exchange, identity(found.subject, found.lines))

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        return "403 without a client certificate that its handshake verified"


def credentials(given: bytes) -> tuple[bytes, bytes] | None:
    """Name and password of an Authorization field; None when it is no Basic."""
    kind, _, encoded = given.partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        name, colon, password = b64decode(encoded.strip(b" "), validate=True).partition(b":")
    except NotBase64:
        return None
    return (name, password) if colon and name and not CONTROL.search(name + password) else None


CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
