"""What the endpoints share: JSON in and out, and values of a request with one clear line for each mistake."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

from edge.config_types import parse_duration
from edge.control.given import text_of
from edge.control.refusals import Refusal
from edge.control.registry import Change
from edge.control.supervisor import Supervisor

SUPERVISOR: web.AppKey[Supervisor] = web.AppKey("supervisor", Supervisor)


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer; never kept by anyone."""
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n",
        status=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        content_type="application/json",
    )


async def body_of(request: web.Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The request's JSON object, with no key that nobody knows; an empty body is an empty object."""
    data = await request.read()
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


CHANGE_KEYS = ("actor", "reason", "force", "expires")


def change_of(request: web.Request, body: dict[str, Any]) -> Change:
    """Actor, reason, force and expiry, from the body or (DELETE) from the query."""
    given = {key: body.get(key, request.query.get(key)) for key in CHANGE_KEYS}
    force = given["force"]
    if not isinstance(force, bool):
        force = str(force or "").lower() in ("1", "true", "yes")
    expires = given["expires"]
    expires_at: float | None = None
    if expires is not None:
        try:
            expires_at = time.time() + parse_duration(expires)
        except ValueError as error:
            raise Refusal(f"expires: {error}") from None
    return Change(
        actor=text_of(given, "actor") or f"api:{request.remote or 'unknown'}",
        reason=text_of(given, "reason"),
        force=force,
        expires_at=expires_at,
    )


def number(request: web.Request, key: str, default: int, low: int, high: int) -> int:
    """A number in the query."""
    raw = request.query.get(key)
    if raw is None:
        return default
    if not (raw.isascii() and raw.isdigit() and low <= int(raw) <= high):
        raise Refusal(f"{key}: must be a number between {low} and {high}")
    return int(raw)
