"""Hooks of a route: an operator's own plain functions, where no application is needed.

    request(head)      a step after the route's other rules    goes on, answers (`sdk.Respond`), or changes the request
    cache_key(head)    with it                                  bytes that keep what is stored apart
    response(head)     when a head is written to a client      changes its lines; what is stored is not touched

One rule: what is stored for one request is given to no other that the hook treats differently. What `request` changes
is in the key, unless `cache_key` says what is. A hook that fails ends its request with a 500, told and counted: what
`response` would have removed does not get out. A hook is no place to wait: it has `BUDGET_S`, and more is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

from edge.config.rule_values import NOT_FOR_CLIENTS, NOT_FOR_ORIGINS
from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.compiled import RuleSet
from edge.dataplane.rules.delivery import Delivery
from edge.dataplane.rules.hook_heads import Edit, RequestView, ResponseView, field_line, kept_apart
from edge.dataplane.rules.outbound import Granted, Outbound, Sent
from edge.errors import HookFailed
from edge.sdk import Changes, Respond

BUDGET_S = 0.005
_STATUSES = range(200, 600)

Told = Callable[[str, str, BaseException | None], None]  # evidence, request id, what was raised
Instead = Callable[[Any, HookFailed], None]  # an exchange's response is this error, though its head was to be written


class Counts(Protocol):
    """Counters of a hook or an application."""

    requests: int


class Hook:
    """One hook. `told`: records its faults; `counts`: its counters."""

    __slots__ = ("cache_key", "counts", "name", "request", "response", "told")

    def __init__(self, name: str, functions: Sequence[Callable[[Any], Any] | None], told: Told, counts: Counts) -> None:
        """`functions`: request, response, cache_key, or None for each."""
        self.name = name
        self.told = told
        self.counts = counts
        self.request, self.response, self.cache_key = functions

    def call(self, function: Callable[[Any], Any], head: Any, asked: Asked) -> Any:
        """What a function returns. Raises HookFailed for whatever it raises."""
        self.counts.requests += 1
        began = perf_counter()
        try:
            found = function(head)
        except Exception as error:
            raise self.failed(asked, "", error) from None
        seconds = perf_counter() - began
        if seconds > BUDGET_S:
            self.told(f"{_name(function)} took {seconds * 1000:.1f} ms", _id(asked), None)
        return found

    def failed(self, asked: Asked, evidence: str, error: BaseException | None = None) -> HookFailed:
        """Record a fault; returns the exception to raise."""
        self.told(evidence, _id(asked), error)
        return HookFailed("a hook of the route failed")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "it")


def _id(asked: Asked) -> str:
    return asked.own_id().decode("latin-1")


# -- where they act ----------------------------------------------------------------------------------------------------


class Hooked(Asked, Protocol):
    """What hooks need of an exchange."""

    apart: bytes
    reason: str
    changes: tuple[Edit, ...]

    def reply(self, status: int, lines: bytes, body: bytes) -> None: ...


class HookStep:
    """The `request` and `cache_key` functions, as a step of the route."""

    name = "hooks"

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hook for hook in hooks if hook.request or hook.cache_key)

    @property
    def acts(self) -> bool:
        """Whether any hook has one of these functions."""
        return bool(self._hooks)

    def apply(self, exchange: Hooked) -> bool:
        """Call the hooks in order. Raises HookFailed."""
        view = RequestView(exchange)
        for hook in self._hooks:
            if hook.request is not None:
                found = hook.call(hook.request, view, exchange)
                if found is not None and self._done(hook, found, exchange):
                    return True
            if hook.cache_key is not None:
                key = hook.call(hook.cache_key, view, exchange)
                if not isinstance(key, bytes):
                    raise hook.failed(exchange, f"cache_key returned {type(key).__name__}, not bytes")
                exchange.apart += kept_apart(key)
        return False

    @staticmethod
    def _done(hook: Hook, found: Any, exchange: Hooked) -> bool:
        """Carry out what a hook returned; whether it answered the request."""
        try:
            if isinstance(found, Changes):
                edit = found.prepared.get("request") or Edit.of(found, "request", NOT_FOR_ORIGINS)
                exchange.changes += (edit,)
                if hook.cache_key is None:
                    exchange.apart += edit.apart
                return False
            if isinstance(found, Respond):
                status, lines, body = _answer(found)
            else:
                raise TypeError(f"request returned {type(found).__name__}, not None, Changes or Respond")
        except (ValueError, TypeError, AttributeError) as error:
            raise hook.failed(exchange, str(error)) from None
        exchange.reason = "hook"
        exchange.reply(status, lines, body)
        return True

    def explain(self, asked: Asked) -> str:
        """For people; a hook is not called for a request that nobody sent."""
        return f"asks {', '.join(hook.name for hook in self._hooks)}"


def _answer(found: Respond) -> tuple[int, bytes, bytes]:
    """A hook's `Respond` as status, lines and body. Raises ValueError, TypeError."""
    if found.status not in _STATUSES:
        raise ValueError(f"a status of {found.status!r}")
    body = found.body.encode() if isinstance(found.body, str) else found.body
    if not isinstance(body, bytes):
        raise TypeError(f"a body of type {type(body).__name__}")
    if body and found.status in (204, 205, 304):
        raise ValueError(f"a {found.status} has no body")
    lines = b"".join([field_line(name, value, NOT_FOR_CLIENTS) for name, value in found.headers.items()])
    if body and not any(name.lower() == "content-type" for name in found.headers):
        lines += b"Content-Type: text/plain; charset=utf-8\r\n"
    return found.status, lines, body


class HookOutbound(Outbound):
    """What a backend is asked, by the route's rules and then by what `request` changed."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Outbound | None) -> None:
        super().__init__(None, None, None)
        self._rules = rules
        self.varying = None if rules is None else rules.varying

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        return [] if self._rules is None else self._rules.explain(asked)

    def sent(self, asked: Granted, host: bytes, lines: bytes, own: bytes, region: bytes) -> Sent:
        target = asked.target
        if self._rules is not None:
            target, host, lines, own = self._rules.sent(asked, host, lines, own, region)
        for edit in asked.changes:  # type: ignore[attr-defined]  # an exchange's
            target = edit.target or target
            lines, own = edit.applied(lines, own)
        return target, host, lines, own


class HookDelivery(Delivery):
    """The response rules of a route with hooks: first the hooks, then the header rules."""

    __slots__ = ("_failing", "_hooks", "_instead", "_rules")

    def __init__(self, hooks: Iterable[Hook], rules: Delivery | None, instead: Instead) -> None:
        super().__init__(None)
        self._hooks = tuple((hook, hook.response) for hook in hooks if hook.response is not None)
        self._instead = instead
        self._failing: Any = None  # whose response is an error in the place of another one just now
        self._rules = rules if rules is not None else Delivery(None)

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        does = f"asks {', '.join(hook.name for hook, _ in self._hooks)}"
        return [{"rule": "hooks (response)", "does": does}, *self._rules.explain(asked)]

    def head(self, asked: Any, wire: bytes, own: bytes, region: bytes) -> bytes:
        """Empty where a hook failed: an error has been answered in its place, which is not asked about."""
        if asked is not self._failing:
            try:
                for hook, function in self._hooks:
                    wire, own = self._changed(hook, function, asked, wire, own)
            except HookFailed as error:
                self._fail(asked, error)
                return b""
        return self._rules.head(asked, wire, own, region)

    def _fail(self, asked: Any, error: HookFailed) -> None:
        self._failing = asked
        try:
            self._instead(asked, error)
        finally:
            self._failing = None

    @staticmethod
    def _changed(
        hook: Hook, function: Callable[[Any], Any], asked: Any, wire: bytes, own: bytes
    ) -> tuple[bytes, bytes]:
        found = hook.call(function, ResponseView(asked, wire), asked)
        if found is None:
            return wire, own
        try:
            if not isinstance(found, Changes):
                raise TypeError(f"response returned {type(found).__name__}, not None or Changes")
            if found.target is not None:
                raise ValueError("a response has no target")
            edit = Edit.of(found, "response", NOT_FOR_CLIENTS)
        except (ValueError, TypeError, AttributeError) as error:
            raise hook.failed(asked, str(error)) from None
        if edit.gone:
            wire, own = edit.kept(wire), edit.kept_of_own(own)
        return wire + edit.lines, own


def with_hooks(hooks: Sequence[Hook], does: RuleSet, instead: Instead) -> RuleSet:
    """The rules of a route with its hooks after them."""
    if not hooks:
        return does
    step = HookStep(hooks)
    return replace(
        does,
        steps=(*does.steps, step) if step.acts else does.steps,
        outbound=HookOutbound(does.outbound) if step.acts else does.outbound,
        delivery=HookDelivery(hooks, does.delivery, instead) if any(hook.response for hook in hooks) else does.delivery,
        plain=False,
    )
