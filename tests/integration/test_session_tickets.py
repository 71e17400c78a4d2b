"""TLS sessions are resumed at whichever worker a client comes to, over reloads and restarts; nowhere else."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK, free_port
from kit.processes import GatewayProcess, gateway_head, patient
from kit.tls import Files, issue, s_client
from kit.waiting import until
from reloading import api, edge

from edge.adapters import session_tickets
from edge.adapters.listener_tls import ListenerTls, TlsSettings
from edge.adapters.session_tickets import STEP_S, TicketSecret, share
from edge.adapters.tls import listening_context

TRIES = 12  # connections: that all of them come to one of two workers has a chance of 1 in 2,048


class Secure(GatewayProcess):
    """Two workers behind one TLS listener."""

    https_port = 0


@pytest.fixture
def gateway(tmp_path: Path, origin: ScriptedOrigin) -> Iterator[Secure]:
    port = free_port()
    folder = tmp_path / "gateway"
    folder.mkdir()
    started = Secure.start(
        f"""{gateway_head(2)}
        [[listen.https]]
        address = "{LOOPBACK}:{port}"
        certificates = [{issue(trustme.CA(), tmp_path, "a.test").toml}]
        [pools.web]
        {patient("")}
        [[pools.web.backends]]
        url = "{origin.url}"
        [[routes]]
        pool = "web"
        cache = false
        """,
        folder,
    )
    assert isinstance(started, Secure)
    started.https_port = port
    yield started
    started.stop()


async def resumed(port: int, version: str, session: Path) -> int:
    """How many of TRIES connections resumed the session in a file."""
    seen = await asyncio.gather(*(s_client(port, version, "-sess_in", str(session)) for _ in range(TRIES)))
    assert all(each.statuses == [200] for each in seen)
    return sum(each.reused for each in seen)


async def busy_workers(gateway: GatewayProcess) -> list[int]:
    """The workers' processes."""
    status, found = await api(gateway, "GET", "/v1/status")
    assert status == 200
    return [worker["pid"] for worker in found["workers"] if worker["pid"]]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_every_worker_resumes_before_and_after_a_reload_and_a_restart(
    version: str, gateway: Secure, tmp_path: Path
) -> None:
    session = tmp_path / "session"
    assert (await s_client(gateway.https_port, version, "-sess_out", str(session))).statuses == [200]
    assert await resumed(gateway.https_port, version, session) == TRIES
    assert (await edge(gateway, "reload")).returncode == 0
    assert await resumed(gateway.https_port, version, session) == TRIES
    before = await busy_workers(gateway)
    os.kill(before[0], signal.SIGKILL)

    async def replaced() -> bool:
        now = await busy_workers(gateway)
        return len(now) >= 2 and before[0] not in now

    await until(replaced, look_s=0.05)
    assert await resumed(gateway.https_port, version, session) == TRIES


async def test_replaced_files_are_shown_by_every_worker_without_a_reload(gateway: Secure, tmp_path: Path) -> None:
    """And broken ones are not."""
    files, other = Files(tmp_path / "a.test.pem", tmp_path / "a.test.key"), issue(trustme.CA(), tmp_path, "new.test")

    async def shown() -> set[str]:
        return {each.subject for each in await asyncio.gather(*(s_client(gateway.https_port) for _ in range(TRIES)))}

    async def told(kind: str) -> bool:
        _, found = await api(gateway, "GET", "/v1/events?follow=0")
        return any(event["kind"] == kind for event in found["events"])

    async def all_show(names: set[str]) -> bool:
        return await shown() == names

    assert await shown() == {"a.test"}
    for ours, theirs, kind, names in (
        (files.cert, other.cert, "certificate.unusable", {"a.test"}),
        (files.key, other.key, "certificate.renewed", {"new.test"}),
    ):
        ours.write_bytes(theirs.read_bytes())
        await until(partial(told, kind), look_s=0.1)
        await until(partial(all_show, names))  # the event comes before the workers have done it


# -- keys --------------------------------------------------------------------------------------------------------------


def handshake(server: ssl.SSLContext, session: ssl.SSLSession | None, client: ssl.SSLContext) -> ssl.SSLObject:
    """In memory; the client's side, which has its ticket."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, session=session, server_hostname="a.test")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    done = [False, False]
    while not all(done):
        for number, each in enumerate((ours, theirs)):
            if not done[number]:
                try:
                    each.do_handshake()
                    done[number] = True
                except ssl.SSLWantReadError:
                    pass
    theirs.write(b"x")
    assert ours.read(1) == b"x"
    return ours


def listeners(folder: Path, tickets: TicketSecret, *places: tuple[str, TlsSettings], now: float) -> list[ListenerTls]:
    """One for each place, as different workers would have them."""
    pair = issue(trustme.CA(), folder, "a.test").pair
    found = []
    for name, settings in places:
        found.append(ListenerTls(settings, [pair]))
        found[-1].share_sessions(tickets, name, now)
    return found


def client_context() -> ssl.SSLContext:
    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def test_a_ticket_opens_its_own_listener_under_the_same_settings_alone(tmp_path: Path) -> None:
    one, same = TicketSecret(b"s" * 32, 10), TicketSecret(b"s" * 32, 10)
    now, settings = 10.5 * STEP_S, TlsSettings()
    (here,) = listeners(tmp_path, one, ("a:443", settings), now=now)
    there, elsewhere, other = listeners(
        tmp_path, same, ("a:443", settings), ("b:443", settings), ("a:443", TlsSettings(refuse_unknown=True)), now=now
    )
    (foreign,) = listeners(tmp_path, TicketSecret(b"x" * 32, 10), ("a:443", settings), now=now)
    client = client_context()
    session = handshake(here.context, None, client).session
    assert handshake(there.context, session, client).session_reused
    for each in (elsewhere, foreign):
        assert not handshake(each.context, session, client).session_reused
    assert share(other.context, same.keys(b"")) or session_tickets._library() is None


def test_keys_step_by_the_clock_and_old_secrets_are_forgotten(tmp_path: Path) -> None:
    tickets, late = TicketSecret(b"s" * 32, 10), TicketSecret(b"s" * 32, 10)
    (here,) = listeners(tmp_path, tickets, ("a:443", TlsSettings()), now=10.5 * STEP_S)
    client = client_context()
    session = handshake(here.context, None, client).session
    here.tick(10.9 * STEP_S)
    assert handshake(here.context, session, client).session_reused
    here.tick(12.1 * STEP_S)
    assert not handshake(here.context, session, client).session_reused
    session = handshake(here.context, None, client).session
    here.tick(9.0 * STEP_S)  # a clock that was set back
    assert handshake(here.context, session, client).session_reused
    (later,) = listeners(
        tmp_path, TicketSecret.told(late.tell(12.2 * STEP_S)), ("a:443", TlsSettings()), now=12.2 * STEP_S
    )
    assert handshake(later.context, session, client).session_reused, "a worker that began later"
    assert b"s" * 32 not in (tickets._secret, late._secret)


def test_where_openssl_is_not_reached_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    context = listening_context()
    assert share(context, b"k" * 80)
    monkeypatch.setattr(session_tickets, "_library", lambda: None)
    assert not share(context, b"k" * 80)

    class Other:
        def options(self, handle: object) -> int:
            return 0

        def control(self, *given: object) -> int:
            raise AssertionError("the handle is not what it should be")

    monkeypatch.setattr(session_tickets, "_library", Other)
    assert not share(context, b"k" * 80)
