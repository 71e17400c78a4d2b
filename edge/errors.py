"""Every way a request or an operation can fail, mapped once at the border.

Each class knows whose side failed, the status a client sees, the RFC 9209 word for `Proxy-Status`, whether another
attempt may be made, and whether it counts against the backend. `CancelledError` is never one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Side(Enum):
    """Whose fault: the client's, the upstream's, or our own."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    GATEWAY = "gateway"


class Repeat(Enum):
    """When another attempt may be made after this failure."""

    NEVER = "never"
    ALWAYS = "always"  # nothing was sent
    IDEMPOTENT = "idempotent"  # only for methods that may be repeated (RFC 9110 9.2.2)


class EdgeError(Exception):
    """Base of all. `detail` is a short phrase for logs and Proxy-Status; it never carries secrets or addresses."""

    side: ClassVar[Side] = Side.GATEWAY
    status: ClassVar[int] = 500
    proxy_status: ClassVar[str] = "proxy_internal_error"
    repeat: ClassVar[Repeat] = Repeat.NEVER
    counts: ClassVar[bool] = False
    passing: ClassVar[bool] = False  # what a backend that restarts looks like: a moment later it may be well

    def __init__(self, detail: str = "", status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if status is not None:
            self.status = status  # type: ignore[misc]  # one instance may narrow its class's status (413/414/431)


def outcome_of(error: Exception, report_bug: Callable[[Exception], None]) -> EdgeError:
    """What to answer for an exception. Anything but an EdgeError is a bug: it is reported, and the answer is a 500."""
    if isinstance(error, EdgeError):
        return error
    report_bug(error)
    return EdgeError("internal error")


class HookFailed(EdgeError):
    """A hook of the route raised, or returned what cannot be done; told already."""


class ClientError(EdgeError):
    """The client's doing: never counts against a backend, never repeated."""

    side = Side.CLIENT
    status = 400
    proxy_status = "http_request_error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A client's error as a value, for what is remembered. An exception object is never shared: raising one again and
    again makes its traceback grow without bound."""

    kind: type[ClientError]
    detail: str
    status: int

    @classmethod
    def of(cls, error: ClientError) -> Refusal:
        """The words of an error that was just made."""
        return cls(type(error), error.detail, error.status)

    def error(self) -> ClientError:
        """A new exception, to be raised once."""
        return self.kind(self.detail, self.status)


class BadRequest(ClientError):
    """Malformed or ambiguous request."""


class PlainHttp(BadRequest):
    """A request without TLS, on a port that speaks nothing else."""

    page = b"This port speaks HTTPS; the request came as plain HTTP.\n"


class TooLarge(ClientError):
    """A limit was passed: 413 content, 414 target, 431 fields (given per instance)."""

    status = 413


class Denied(ClientError):
    """A rule refuses the request."""

    status = 403
    proxy_status = "http_request_denied"


class MethodNotAllowed(Denied):
    """405; `allow` are the methods that the place takes, for the field Allow (empty: the usual ones)."""

    status = 405

    def __init__(self, allow: bytes = b"") -> None:
        super().__init__("method not allowed")
        self.allow = allow


class LoopDetected(ClientError):
    """The request was here before: it came back from a backend (RFC 8586)."""

    status = 508
    proxy_status = "proxy_loop_detected"


class ClientSlow(ClientError):
    """The client missed a deadline."""

    status = 408


class OnlyIfCached(ClientError):
    """The client wanted only what is stored, and nothing usable is (RFC 9111 5.2.1.7)."""

    status = 504
    proxy_status = "http_request_denied"


class ClientGone(ClientError):
    """The client closed before the end; 499 in the log only."""

    status = 499


class UpstreamError(EdgeError):
    """The upstream side failed."""

    side = Side.UPSTREAM
    status = 502
    counts = True


class NoBackend(UpstreamError):
    """No backend is available for the route."""

    status = 503
    proxy_status = "destination_unavailable"
    counts = False


class ConnectFailed(UpstreamError):
    """The connection was refused, reset or could not be resolved; nothing was sent."""

    proxy_status = "connection_refused"
    repeat = Repeat.ALWAYS
    passing = True


class ConnectTimeout(UpstreamError):
    """No connection within the connect deadline; nothing was sent."""

    status = 504
    proxy_status = "connection_timeout"
    repeat = Repeat.ALWAYS


class ConnectionLost(UpstreamError):
    """The connection ended before a response head."""

    proxy_status = "connection_terminated"
    repeat = Repeat.IDEMPOTENT
    passing = True


class BadAnswer(UpstreamError):
    """The backend answered 502, 503 or 504; told only when no later attempt could be made."""

    status = 503
    proxy_status = "destination_unavailable"
    repeat = Repeat.IDEMPOTENT
    passing = True


class ResponseTimeout(UpstreamError):
    """No response head, or no further byte, within its deadline."""

    status = 504
    proxy_status = "http_response_timeout"
    repeat = Repeat.IDEMPOTENT


class ResponseInvalid(UpstreamError):
    """The response broke the grammar or a limit."""

    proxy_status = "http_protocol_error"


class ResponseIncomplete(UpstreamError):
    """The response ended early after its head was sent on: abort, never repeat, never store."""

    proxy_status = "http_response_incomplete"


class PoolFull(UpstreamError):
    """Every backend is at its limit and the queue's wait ran out; not the backends' fault."""

    status = 503
    proxy_status = "connection_limit_reached"
    counts = False


class FleetAway(EdgeError):
    """The server that machines share cannot be reached, or does not answer in time."""


class HistoryChanged(FleetAway):
    """It has another purge stream than the one that was meant."""


class ConfigError(EdgeError):
    """A configuration that cannot be used. `problems` are complete lines, `file:line:column key: what is wrong`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RecoveryError(EdgeError):
    """Taking, keeping or using recovery points failed. `detail` says what happened, then what to do."""


class ChainBroken(RecoveryError):
    """A point needs another one that is missing, damaged, or not the one that it was taken on."""


class ChecksumMismatch(RecoveryError):
    """Bytes are not those that were written."""


class NoRecoveryPoint(RecoveryError):
    """There is no such point, or none at all."""

    status = 404


class RepositoryUnreachable(RecoveryError):
    """The repository did not answer, or answered that it cannot now: another attempt may succeed."""

    status = 503
    repeat = Repeat.ALWAYS


class RepositoryRefused(RecoveryError):
    """The repository does not let us: credentials, permissions, a read-only disk. Another attempt will not help."""

    status = 503


class RepositoryFull(RecoveryError):
    """No room is left where points go."""

    status = 507


class RepositoryLocked(RecoveryError):
    """Somebody else holds a lock that does not go with what was asked."""

    status = 409


class LockLost(RecoveryError):
    """Our own lock was taken away while we worked: nothing was published."""

    status = 409


class RepositoryNewer(RecoveryError):
    """The repository, or a point in it, was written by a newer program."""


class WrongKey(RecoveryError):
    """The key is missing, unreadable, or not the repository's."""


class ClockJumped(RecoveryError):
    """The clock is before what is already there: points would have a wrong order."""


class RecoveryBusy(RecoveryError):
    """Another recovery job of this gateway runs."""

    status = 409


class RestoreRefused(RecoveryError):
    """The target cannot be restored to as things stand; it was not touched."""

    status = 409


class VerifyFailed(RecoveryError):
    """Verification found something; the lines say what."""


class DrillFailed(RecoveryError):
    """A drill found that a point does not do what it is for; the lines say what."""


class RunbookFailed(RecoveryError):
    """A runbook cannot be read, or a step of it did not end well."""


class SecretInTheClear(RecoveryError):
    """A point would hold a secret that nothing encrypts."""
