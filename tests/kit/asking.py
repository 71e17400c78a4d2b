"""One HTTP request by the standard library: for tests without a loop, and for threads of those that have one."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from contextlib import closing
from email.message import Message
from typing import NamedTuple

from kit.ports import LOOPBACK
from kit.waiting import WAIT_S


class Answer(NamedTuple):
    """A whole response. `fields` are asked by name, in any case."""

    status: int
    fields: Message
    body: bytes


def ask(
    port: int, target: str = "/", method: str = "GET", body: str | None = None, fields: Mapping[str, str] | None = None
) -> Answer:
    """One request over a connection of its own, and its answer. Raises OSError where nobody gives one."""
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=WAIT_S)) as connection:
        connection.request(method, target, body, dict(fields or {}))
        found = connection.getresponse()
        return Answer(found.status, found.headers, found.read())


def status_of(port: int, target: str = "/") -> int:
    """The status of a GET; 0 where nobody answers."""
    try:
        return ask(port, target).status
    except OSError:
        return 0
