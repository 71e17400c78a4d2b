"""The admin API of a whole gateway in this process, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from edge.control.access import Access, Role, Token
from edge.control.admin.application import admin_app
from kit.control import Whole

TOKEN = "t" * 40
TOKENS = (Token(TOKEN), Token("r" * 40, Role.READ, "grafana"), Token("p" * 40, Role.PURGE, "deploy"))


class AdminClient:
    """`whole` is the gateway; `client` asks its API as it is told, without a token of its own."""

    def __init__(self, whole: Whole, client: TestClient[Any, Any]) -> None:
        self.whole = whole
        self.client = client

    async def send(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> ClientResponse:
        """One request with a token; `body` is sent as JSON."""
        return await self.client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

    async def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, Any]:
        """Status and JSON of one request with a token."""
        async with await self.send(method, path, body, token) as response:
            return response.status, json.loads(await response.text())


@asynccontextmanager
async def admin_client(toml: str, hosts: Sequence[str] = (), **settings: Any) -> AsyncIterator[AdminClient]:
    """A gateway of this configuration, started and ended; `settings` are those of `admin_app`."""
    whole = Whole(toml)
    await whole.start()
    app = admin_app(whole.supervisor, Access(TOKENS, hosts), **settings)
    async with TestClient(TestServer(app)) as client:
        yield AdminClient(whole, client)
    await whole.supervisor.stop(1.0)
