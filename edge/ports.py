"""What the data path needs from outside, as Protocols and plain values.

Each is a contract that real parts and test fakes both keep. Nothing here has behaviour. What implements one of these
lives in `adapters` or `dataplane`; `app` wires them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from edge.cache.body import BodyFile
from edge.cache.fleet.record import SharedEntry
from edge.cache.fleet.view import FleetView
from edge.cache.purge import Purge, PurgeLog
from edge.cache.stored import Stored
from edge.errors import UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.http.proxy_protocol import ClientEnds
from edge.metrics import Meter


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each wait on a backend; the defaults are safe on the open internet."""

    connect: float = 1.0
    first_byte: float = 10.0
    head: float = 15.0
    body: float = 30.0
    idle: float = 30.0
    queue: float = 1.0
    tunnel: float = 3600.0


class ResponseSink(Protocol):
    """Who receives one upstream response. Calls come in this order, on the loop, never re-entrantly from `send`:

    `on_ready`? (`on_interim`)* (`on_head` (`on_data`)* `on_end`)? `on_failed`?: after `on_end` or `on_failed` nothing
    more comes. When `on_head` has `done`, `on_end` is not called: the body given with it is all there is.
    """

    def on_interim(self, facts: ResponseFacts) -> None:
        """A 1xx response other than 101 came."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The final head came. `length` is the body's size in bytes, None when only its end will tell."""

    def on_data(self, data: bytes) -> None:
        """A piece of the body; never empty."""

    def on_end(self, trailers: list[Line]) -> None:
        """The response is complete."""

    def on_failed(self, error: UpstreamError) -> None:
        """The attempt ended without a complete response. The connection is closed already."""

    def on_bug(self, error: Exception) -> None:
        """One of these calls raised: end the request. The connection is closed already."""

    def on_pause(self) -> None:
        """The upstream takes no more of the request body for now."""

    def on_resume(self) -> None:
        """The upstream takes the request body again."""


class Connection(Protocol):
    """One upstream connection, for one request at a time."""

    transport: Any  # an asyncio transport
    reused: bool  # it carried a request before
    bound: bool  # it is one client's
    deadline: float
    sink: ResponseSink | None

    @property
    def link(self) -> Link:
        """The link that it belongs to."""

    def send(self, data: bytes, sink: ResponseSink, timeouts: Timeouts, head_only: bool, upgrade: bool) -> None:
        """Send a request head and expect one response within these times."""

    def upload_begins(self) -> None:
        """The request's body follows in pieces."""

    def upload(self, data: bytes) -> None:
        """Send a piece of the body, which is framed already."""

    def upload_ends(self) -> None:
        """The request is complete."""

    def pause(self) -> None:
        """Stop reading the response for now."""

    def resume(self) -> None:
        """Read the response again."""

    def close(self) -> None:
        """Close it once what was written is sent. The sink hears nothing more."""

    def cancel(self) -> None:
        """The response is not wanted any more: close the connection."""


class Link(Protocol):
    """All connections to one backend."""

    meter: Meter
    label: bytes  # the backend's id and region as the log writes them

    @property
    def connections(self) -> Collection[Connection]:
        """All open connections, idle ones included."""

    @property
    def idle(self) -> Collection[Connection]:
        """The idle connections, kept for later requests."""

    def renew(self, other: Any) -> bool:
        """Take the settings of another link to the same backend. False when those need new connections."""

    def take(self, waiter: Connector | None = None) -> Connection | None:
        """The newest idle connection that may carry the waiter's request, or None."""

    def connect(self, waiter: Connector, timeout: float) -> None:
        """Make a connection within `timeout` seconds; the waiter is called later on the loop."""

    def give_back(self, connection: Any) -> None:
        """Return a connection that was taken and not used."""

    def bind(self, connection: Any) -> None:
        """Reserve it for the one client whose request it carries, or carried last."""

    def take_bound(self, connection: Any) -> bool:
        """Whether that client's next request may use it."""

    def let_go(self, connection: Any) -> None:
        """The client of a bound connection left: close it when its request is over."""

    def tick(self, now: float) -> None:
        """Close what has passed its deadline."""

    def silent(self, before: float) -> list[ResponseSink]:
        """The requests that were sent whole before this time and have had no byte of an answer."""

    def open(self) -> list[ResponseSink | Connector]:
        """The requests that are at the backend, or wait for a connection to it."""

    def close_idle(self) -> None:
        """Close the idle connections."""

    async def close(self) -> None:
        """Close all connections."""


class LogSink(Protocol):
    """Where access log lines go."""

    enabled: bool
    stamp: bytes  # the current second, ISO 8601
    stamp_combined: bytes  # the same, as the combined format has it

    @property
    def lost(self) -> int:
        """How many lines could not be written."""

    def refresh(self, now: float) -> None:
        """Renew the time stamps."""

    def add(self, line: bytes) -> None:
        """Keep a line until the next flush."""

    @property
    def waiting(self) -> Sequence[bytes]:
        """The lines that wait for the next flush."""

    def flush(self) -> None:
        """Write the lines that wait."""

    def reopen(self) -> None:
        """Open the file anew after rotation."""

    def close(self) -> None:
        """Flush, and close the file."""


class Service(Protocol):
    """Something that runs beside the requests of a worker."""

    async def start(self) -> None:
        """Start it, before the listeners open. Raises ConfigError."""

    async def stop(self) -> None:
        """Stop it, after the last request."""

    @property
    def code(self) -> str:
        """A fingerprint of the code that is loaded."""

    async def probe(self, name: str, path: str, host: str, timeout_s: float) -> dict[str, Any]:
        """Ask one of them for its health path. Raises KeyError for one that does not run here."""

    def words(self) -> Mapping[str, Mapping[str, int]]:
        """Its counts so far, by name and word; words of several labels are joined by a tab."""


class Connector(Protocol):
    """A request that waits for a new connection. `client`: whose request it is."""

    @property
    def client(self) -> ClientEnds: ...
    def on_connected(self, connection: Connection) -> None:
        """A connection is ready. The receiver must send on it, or give it back, at once."""

    def on_failed(self, error: UpstreamError) -> None:
        """No connection could be made; nothing was sent."""

    def on_bug(self, error: Exception) -> None:
        """`on_connected` raised. The connection is closed already."""


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """A file of a repository."""

    name: str
    size: int


class Repository(Protocol):
    """Where recovery points are: files by name (words with slashes), each written once.

    All calls block. They raise RepositoryUnreachable when another attempt may succeed, RepositoryRefused when it will
    not (credentials, permissions), RepositoryFull; a name that is not there is None or nothing, never an error.
    """

    place: str  # for people; without credentials

    def put(self, name: str, data: bytes) -> None:
        """Write or replace a file, whole and durable when this returns; before, readers see nothing of it."""

    def create(self, name: str, data: bytes) -> bool:
        """As `put`, but returns False and changes nothing when the name exists."""

    def get(self, name: str) -> bytes | None:
        """The whole file."""

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """A part of it; shorter when the file ends before."""

    def size(self, name: str) -> int | None:
        """Its size in bytes."""

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        """All files whose names begin with `prefix` (a folder's name and a slash, or nothing), in any order."""

    def delete(self, name: str) -> None:
        """Delete the file, if it is there."""

    def clean(self) -> None:
        """Remove what killed writers left. No writer may run meanwhile."""


class OpenBody(Protocol):
    """A stored body that is being sent from its file."""

    def quick(self, number: int) -> bytes | bytearray | Exception | None:
        """A piece (`cache.body`), or its error; None where reading it would wait for the disk."""

    def piece(self, number: int, wait: bool) -> bytes | bytearray:
        """A piece, even if reading it waits; for a thread. Raises its error."""

    def close(self) -> None:
        """Close the file."""


class Spill(Protocol):
    """A body that goes to the disk as it comes, without passing through memory."""

    drained: Callable[[], None] | None  # called when it is not full any more, or failed
    failed: bool

    @property
    def full(self) -> bool:
        """Whether the disk does not keep up, so that the source should be held back."""

    def write(self, data: bytes) -> None:
        """Write a piece."""

    def finish(self, done: Callable[[BodyFile | None, str], None]) -> None:
        """The body is complete. `done` gets it and its temporary name for `DiskTier.put`, or None if it failed."""

    def abort(self) -> None:
        """Drop the body."""


class DiskTier(Protocol):
    """The machine's second tier. Calls belong to the loop, and none of them waits for a disk.

    Whatever goes wrong is a miss or a response that is not kept; nobody who asks hears of it but by `events`.
    """

    purge_log: Callable[[], PurgeLog]  # the worker's purge sequence, which everything found is held against

    def look(self, key: bytes) -> tuple[Stored, ...] | None:
        """The responses of a key, the newest first; None where finding them would wait for the disk."""

    def look_later(self, key: bytes, then: Callable[[tuple[Stored, ...]], None]) -> None:
        """As `look`, in a thread; `then` is called on the loop."""

    def used(self, stored: Stored) -> None:
        """A response that was found here served a request."""

    def put(self, stored: Stored, seq: int, temp: str | None = None) -> bool:
        """Keep a response that was asked for at `seq`; seen by look-ups at once, written soon, or dropped."""

    def remove(self, stored: Stored) -> None:
        """Remove one response."""

    def forget(self, purge: Purge, now: float) -> None:
        """Obey a purge from now on; it survives this process."""

    def mark(self, stored: Stored) -> tuple[int, int]:
        """(hash of the key, hash of the variant): identifies a stored response in all workers."""

    def waiting(self, purge: Purge, now: float) -> list[Stored]:
        """What waits to be written and what a purge by URL or tag, not yet in force, is about to touch."""

    def recorded(self) -> AbstractContextManager[object]:
        """Hold this lock while a purge is recorded in the sequence, which a thread reads."""

    def spill(self, length: int | None) -> Spill:
        """Begin to write a body to disk while it streams."""

    def forsake(self, temp: str) -> None:
        """Drop a spilled body."""

    def open_body(self, stored: Stored) -> OpenBody | None:
        """The body that is in a file; None when it is gone or damaged."""

    def damage(self, stored: Stored, why: str) -> None:
        """A checksum of this response failed: remove it and tell of it."""

    def later(
        self, work: Callable[[], bytes | bytearray], then: Callable[[bytes | bytearray | Exception], None]
    ) -> None:
        """Read in a thread; `then` is called on the loop."""

    def tick(self) -> None:
        """Periodic work; called four times a second."""

    def stats(self) -> dict[str, float]:
        """This worker's counters."""

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call."""

    def close(self) -> None:
        """Write what waits, then close; blocking."""


class SharedTier(Protocol):
    """What machines store for one another. Calls belong to the loop, and none of them waits.

    Whatever goes wrong is a miss or a response that is not kept; nobody who asks hears of it but by `events`.
    """

    view: FleetView
    purges: Callable[[], PurgeLog]  # the worker's purge sequence, which everything put is held against
    clock: Callable[[], float]

    @property
    def usable(self) -> bool:
        """Whether it may be asked: the machine is in step with the fleet's purges, and the server answers."""

    def look(self, key: bytes, variant: bytes, then: Callable[[SharedEntry | None], None]) -> bool:
        """Ask for a key; `then` gets what it has within the timeout. False: not asked, `then` is not called."""

    def left_of(self, entry: SharedEntry) -> Stored | None:
        """The response of an entry, where no purge speaks against it."""

    def put(self, stored: Stored, seq: int) -> bool:
        """Keep a response that was asked for at `seq`; written soon, or dropped."""

    def tick(self) -> None:
        """Periodic work; called four times a second."""

    def stats(self) -> dict[str, float]:
        """This worker's counters."""

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call."""

    async def close(self) -> None:
        """Close the connections; what waits is not written."""
