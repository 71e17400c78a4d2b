"""Malformed HTTP/2 input, row by row, against a whole gateway: each ends what it has to end, with its code.

One rule: after each row the gateway serves another client, and no backend is left taken.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hyperframe.frame import HeadersFrame, PingFrame
from inprocess import Gateway, StartEdge, edge_toml
from kit.http2 import PREFACE, FrameClient, Http2Client
from kit.http2_corpus import BEFORE_SETTINGS, Row, Wanted, table
from kit.origin import OK, ScriptedOrigin, Step
from kit.waiting import until

ROWS = table()
LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
BARRIER = b"barrier!"


def test_the_corpus_is_large_and_names_each_row_once() -> None:
    names = Counter(row[0] for row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(ROWS) >= 250


async def judged(client: FrameClient, wanted: Wanted) -> object:
    """What came, in the terms of what is wanted."""
    if wanted.ends == "connection":
        found = await client.until_end()
        return None if found is None else ("connection", found.error_code)
    if wanted.ends == "stream" or wanted.ends == "answer":
        await client.until(lambda: client.goaway or client.resets(wanted.stream) or client.ended(wanted.stream))
    await client.send(PingFrame(0, BARRIER))
    await client.until(lambda: client.goaway or any(f.opaque_data == BARRIER for f in pings(client)))
    if client.goaway is not None:
        return ("connection", client.goaway.error_code)
    if client.resets(wanted.stream):
        return ("stream", client.resets(wanted.stream)[0])
    heads = client.of(HeadersFrame, wanted.stream)
    if wanted.ends == "answer" and heads:
        return ("answer", int(dict(client.decoder.decode(heads[0].data))[":status"]))
    return ("nothing", 0)


def pings(client: FrameClient) -> list[PingFrame]:
    return [f for f in client.frames if isinstance(f, PingFrame)]


async def started(origin: ScriptedOrigin, edge: StartEdge) -> Gateway:
    origin.route(b"/hang", Step.SILENCE)
    origin.default = (OK,)
    return await edge(edge_toml(origin.port, listen=LISTEN))


async def row_is_right(gateway: Gateway, row: Row) -> str | None:
    """None, or what is wrong with it."""
    name, wanted, data = row
    client = await FrameClient.connect(gateway.port)
    try:
        await client.send(data)
        found = await judged(client, wanted)
    except (AssertionError, TimeoutError) as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        await client.close()
    expected = (wanted.ends, wanted.code)
    return None if found == expected else f"{name}: wanted {expected}, found {found}"


@pytest.mark.parametrize("section", sorted({row[0].split(" ")[0] for row in ROWS}))
async def test_the_corpus(section: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await started(origin, edge)
    rows = [row for row in ROWS if row[0].split(" ")[0] == section]
    wrong = [found for row in rows if (found := await row_is_right(gateway, row)) is not None]
    assert not wrong, "\n".join(wrong)
    good = await Http2Client.connect(gateway.port)
    assert (await good.get(b"/")).body == b"ok"
    await good.close()
    await until(lambda: gateway.in_flight == 0)


async def test_what_comes_before_the_settings(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await started(origin, edge)
    for name, data in BEFORE_SETTINGS:
        client = await FrameClient.connect(gateway.port, hello=False)
        await client.send(PREFACE, data)
        found = await client.until_end()
        assert found is not None, name
        assert found.error_code == 1, name
        await client.close()


@pytest.mark.parametrize("size", [1, 3, 8, 9, 10, 17])
async def test_the_corpus_in_pieces(size: int, origin: ScriptedOrigin, edge: StartEdge) -> None:
    """The same wherever the bytes are cut: a few rows of each kind, byte by byte or in small pieces."""
    gateway = await started(origin, edge)
    wrong = []
    for name, wanted, data in ROWS[size::7]:
        if len(data) > 2000:
            continue
        client = await FrameClient.connect(gateway.port)
        for at in range(0, len(data), size):
            await client.send(data[at : at + size])
        try:
            found = await judged(client, wanted)
        except (AssertionError, TimeoutError) as error:
            found = str(error)
        if found != (wanted.ends, wanted.code):
            wrong.append(f"{name}: wanted {wanted}, found {found}")
        await client.close()
    assert not wrong, "\n".join(wrong)
