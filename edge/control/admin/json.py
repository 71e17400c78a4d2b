"""What the endpoints share: JSON in and out, and values of a request with one clear line for each mistake."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from edge.config.types import parse_duration
from edge.control.access import Token
from edge.control.admin.errors import Refusal, TooSlow
from edge.control.admin.request_values import text_of
from edge.control.registry import Change
from edge.control.supervisor import Supervisor

BODY_S: web.AppKey[float] = web.AppKey("body_s", float)  # within which a request's body must be there
MOMENTS = frozenset(("at", "expires_at", "failed_at", "loaded_at", "next_at", "since", "started_at", "time"))
DIGITS = 19  # what a number in a query may have: more means nothing here
TOKEN: web.RequestKey[Token] = web.RequestKey("token", Token)
SUPERVISOR: web.AppKey[Supervisor] = web.AppKey("supervisor", Supervisor)


def times(value: Any) -> Any:
    """JSON values with every moment as an RFC 3339 text; within, they are epoch seconds."""
    if isinstance(value, dict):
        return {
            key: rfc3339(item) if key in MOMENTS and isinstance(item, int | float) else times(item)
            for key, item in value.items()
        }
    return [times(item) for item in value] if isinstance(value, list | tuple) else value


def rfc3339(epoch: float) -> str | None:
    """A moment in UTC, to the millisecond; None for "never"."""
    if epoch <= 0:
        return None
    found = datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")
    return found.removesuffix("+00:00") + "Z"


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer; never kept by anyone."""
    return web.Response(
        body=orjson.dumps(times(value), option=orjson.OPT_NON_STR_KEYS) + b"\n",
        status=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        content_type="application/json",
    )


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, more: dict[str, Any] | None = None
) -> web.Response:
    """An error as RFC 9457 has it; `detail` is one clear line, whatever names it repeats. `more` are its extensions."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    body = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": printable("; ".join(detail.splitlines())),
        **(more or {}),
    }
    found = answer(body, status, headers)
    found.content_type = "application/problem+json"
    return found


def printable(text: str) -> str:
    """Control bytes and invisible characters as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


async def read_body(request: web.Request) -> bytes:
    """The whole body, within its time; then 408."""
    seconds = request.app[BODY_S]
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise TooSlow(f"the body did not come within {seconds:g} s") from None


async def body_of(request: web.Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The request's JSON object, with no key that nobody knows; an empty body is an empty object."""
    data = await read_body(request)
    if not data:
        return {}
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal("the body must be a JSON object")
    unknown = [key for key in body if key not in known]
    if unknown:
        raise Refusal(f"unknown key {unknown[0]!r}; known: {', '.join(known)}")
    return body


_FORCE = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
CHANGE_KEYS = ("actor", "reason", "force", "expires")


def change_of(request: web.Request, body: dict[str, Any]) -> Change:
    """Actor, reason, force and expiry, from the body or (DELETE) from the query."""
    given = {key: body.get(key, request.query.get(key)) for key in CHANGE_KEYS}
    force = _force(body, request.query.get("force", ""))
    expires = given["expires"]
    expires_at: float | None = None
    if expires is not None:
        try:
            expires_at = time.time() + parse_duration(expires)
        except ValueError as error:
            raise Refusal(f"expires: {error}") from None
    return Change(
        actor=_actor(request, text_of(given, "actor")),
        reason=text_of(given, "reason"),
        force=force,
        expires_at=expires_at,
    )


def _force(body: dict[str, Any], query: str) -> bool:
    """From the body a boolean, from the query a word for one."""
    force = body.get("force")
    if force is None:
        force = _FORCE.get(query.lower())
    if not isinstance(force, bool):
        raise Refusal("force: must be true or false")
    return force


def _actor(request: web.Request, said: str) -> str:
    """Who it is: a token's name is proven, what a client says of itself stands behind it."""
    token = request.get(TOKEN)
    if token is not None and token.name:
        return f"{token.name} ({said})" if said else token.name
    return said or f"api:{request.remote or 'unknown'}"


def number(request: web.Request, key: str, default: int, low: int, high: int) -> int:
    """A number in the query."""
    raw = request.query.get(key)
    return default if raw is None else number_of(key, raw, low, high)


def number_of(what: str, raw: str, low: int, high: int) -> int:
    """The number that a text of digits stands for. Raises Refusal unless it is between `low` and `high`."""
    if not (raw.isascii() and raw.isdigit() and len(raw) <= DIGITS and low <= int(raw) <= high):
        raise Refusal(f"{what}: must be a number between {low} and {high}")
    return int(raw)
