"""Plain requests through the data path."""

from __future__ import annotations

from inprocess import StartEdge, edge_toml
from kit.origin import ScriptedOrigin


async def test_get(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port))
    client = await gateway.client()
    r = await client.get("/x?a=%2f//..")
    print(r.raw_head, origin.requests[0].raw_head, await gateway.log(1))
    await client.close()
