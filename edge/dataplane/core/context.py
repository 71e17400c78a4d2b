"""What requests and connections ask of the worker that they run in (`worker.worker.Worker`).

One rule: it is all that they may ask. The worker stands above everything that it serves, which knows it by this alone.
`Any` are connections and exchanges: they know this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from edge.dataplane.core.geography import Geography
from edge.dataplane.core.handshakes import Handshakes
from edge.dataplane.core.http2 import Http2
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.router import Router
from edge.dataplane.core.store import Store
from edge.dataplane.core.turns import Turns
from edge.dataplane.rules.holding import Holding
from edge.http.forwarding import Networks
from edge.http.grammar import Limits, RequestHeaders
from edge.http.memo import Memo
from edge.ports import LogSink


class Tracer(Protocol):
    """Decides which requests are traced, and starts their spans (`worker.tracing`)."""

    def picks(self, downstream: Any, block: RequestHeaders) -> bool: ...
    def begin(self, exchange: Any) -> None: ...


class WorkerContext(Protocol):
    """The worker, as far as requests and connections may use it."""

    # -- what is configured --------------------------------------------------------------------------------------------

    @property
    def limits(self) -> WorkerLimits: ...
    @property
    def head(self) -> Limits: ...  # of a request's head
    @property
    def trusted(self) -> Networks: ...  # proxies whose forwarding fields are believed
    @property
    def cdn_id(self) -> bytes: ...  # this gateway's name in CDN-Loop
    @property
    def quick(self) -> bool: ...  # stored responses may be answered the quick way
    @property
    def cold(self) -> bool: ...  # and what is not stored the short way
    @property
    def combined(self) -> bool: ...  # whether the access log has the combined format

    @property
    def tokens(self) -> Mapping[bytes, bytes]: ...  # ACME challenges (HTTP-01) and their answers

    # -- what requests share -------------------------------------------------------------------------------------------

    @property
    def router(self) -> Router: ...
    @property
    def holding(self) -> Holding | None: ...  # where look-ups wait
    def hold(self, is_held: bool) -> None: ...
    @property
    def store(self) -> Store | None: ...
    @property
    def geography(self) -> Geography | None: ...
    @property
    def blocks(self) -> Memo[RequestHeaders]: ...  # header blocks that were parsed, by their bytes
    @property
    def no_block(self) -> RequestHeaders: ...  # an empty one, for bytes that are no request
    @property
    def http2(self) -> Http2: ...
    @property
    def log(self) -> LogSink: ...
    @property
    def tracing(self) -> Tracer | None: ...
    @property
    def turns(self) -> Turns: ...  # long work in pieces

    # -- the time, four times a second ---------------------------------------------------------------------------------

    @property
    def date_line(self) -> bytes: ...  # the Date field
    @property
    def idle_deadline(self) -> float: ...  # of a connection that becomes idle now; monotonic seconds

    # -- its end -------------------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool: ...  # connections end with the exchange that runs on them
    @property
    def stopping(self) -> bool: ...  # new requests are refused

    # -- connections ---------------------------------------------------------------------------------------------------

    @property
    def handshakes(self) -> Handshakes: ...
    @property
    def slow(self) -> set[Any]: ...  # those whose unsent bytes are looked at on each tick
    @property
    def paced(self) -> dict[Any, None]: ...  # responses that wait for their bandwidth
    def admit_connection(self, downstream: Any) -> bool: ...  # False: a limit is reached
    @property
    def header_errors(self) -> Counter[str]: ...  # PROXY headers that ended their connection, by reason
    def make_known(self, before: Any, after: Any) -> None: ...  # its client's address is known now
    def hand_over(self, before: Any, after: Any) -> None: ...  # another protocol goes on with it
    def forget_connection(self, downstream: Any) -> None: ...

    # -- requests ------------------------------------------------------------------------------------------------------

    def next_id(self) -> bytes: ...
    def id_of(self, downstream: Any, given: bytes) -> bytes: ...  # of a request that came with an id
    def finished(self, exchange: Any) -> None: ...  # counts and logs it
    def combined_line(self, client: bytes, block: RequestHeaders, first: bytes, told: tuple[int, int]) -> bytes: ...
    def report_bug(self, error: BaseException) -> None: ...
