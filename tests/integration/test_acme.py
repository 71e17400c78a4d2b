"""Certificates by ACME from a real server (pebble): had, renewed, kept; whatever is killed, away or changed meanwhile.

One rule: what is waited for is what a client sees or what the gateway tells, never the clock alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from cryptography import x509
from kit.acme import Pebble
from kit.ports import LOOPBACK, free_port
from kit.processes import GatewayProcess, gateway_head
from kit.waiting import WAIT_S, until
from reloading import api, edge, get, reload

A, B, C = "a.edge.test", "b.edge.test", "c.edge.test"
LOOKS = 12  # connections enough to meet each of two workers
Start = Callable[[str], GatewayProcess]


@dataclass
class Site:
    """A gateway's TLS listener, and where its certificates are from."""

    pebble: Pebble
    port: int

    def toml(self, *names: str, workers: int = 2) -> str:
        """A configuration; plain HTTP is where the server validates too."""
        return f"""{gateway_head(workers, addresses=[f"{LOOPBACK}:{self.pebble.http_port}"])}
[[listen.https]]
address = "{LOOPBACK}:{self.port}"
acme = {{ directory = "{self.pebble.url}", names = {json.dumps(names)}, ca = "{self.pebble.ca}" }}
[pools.nowhere]
[[pools.nowhere.backends]]
url = "http://{LOOPBACK}:9"
[[routes]]
name = "all"
host = "*"
redirect = {{ to = "https://elsewhere.test/" }}
"""

    def shown(self, name: str) -> x509.Certificate:
        """What a new connection is shown."""
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((LOOPBACK, self.port), WAIT_S) as plain,
            anyone.wrap_socket(plain, server_hostname=name) as found,
        ):
            return x509.load_der_x509_certificate(found.getpeercert(True) or b"")

    def serial(self, name: str) -> int:
        return self.shown(name).serial_number

    async def issued(self, *names: str) -> None:
        """Wait until new connections are shown what the server signed, whichever worker they meet."""
        await until(lambda: all("Pebble" in self.shown(each).issuer.rfc4514_string() for each in names * LOOKS))

    def trusted(self, name: str) -> None:
        """A strict client is content, whichever worker it meets."""
        strict = ssl.create_default_context(cadata=self.pebble.root())
        for _ in range(LOOKS):
            with (
                socket.create_connection((LOOPBACK, self.port), WAIT_S) as plain,
                strict.wrap_socket(plain, server_hostname=name),
            ):
                pass


class Validator:
    """In the place where the server validates: asks the gateway in its stead, many times, and may make it wait."""

    def __init__(self, port: int) -> None:
        self.port, self.to = port, free_port()  # it may be asked before the gateway is ready
        self.asked: list[set[tuple[int, bytes]]] = []
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self._runner: web.AppRunner | None = None

    def toml(self, site: Site) -> str:
        """A gateway whose tokens are asked for here."""
        return site.toml(A).replace(f"{LOOPBACK}:{self.port}", f"{LOOPBACK}:{self.to}")

    async def start(self) -> Validator:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()
        return self

    async def stop(self) -> None:
        self.go_on.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.begun.set()
        await self.go_on.wait()
        found = set()
        for _ in range(20):  # each on a connection of its own, so that both workers are met
            async with (
                ClientSession() as session,
                session.get(
                    f"http://{LOOPBACK}:{self.to}{request.path}", headers={"Host": request.host}, allow_redirects=False
                ) as answer,
            ):
                found.add((answer.status, await answer.read()))
        self.asked.append(found)
        status, body = found.pop()
        return web.Response(status=status, body=body)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Not started: `site.pebble.start()`."""
    pebble = Pebble(tmp_path, free_port())
    yield Site(pebble, free_port())
    pebble.stop()


@pytest_asyncio.fixture
async def validator(site: Site) -> AsyncIterator[Validator]:
    """The server asks here; `to` is the gateway's port."""
    found = await Validator(site.pebble.http_port).start()
    yield found
    await found.stop()


async def started(gateway_process: Start, toml: str) -> GatewayProcess:
    return await asyncio.to_thread(gateway_process, toml)


def events(gateway: GatewayProcess, kind: str) -> list[dict[str, Any]]:
    found = gateway.api("GET", "/v1/events?follow=0&limit=1000")[1]["events"]
    return [event for event in found if event["kind"] == kind]


def issuers(gateway: GatewayProcess) -> list[int]:
    """The process ids of the issuers, of a successor's too."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"edge.cli.issuer" in words and os.getsid(int(place.name)) == gateway.pid:
                found.append(int(place.name))
        except OSError:
            continue
    return found


def kept(gateway: GatewayProcess) -> Path:
    (found,) = (gateway.directory / "state" / "acme").glob("127.0.0.1-*")
    return found


def attempts(gateway: GatewayProcess) -> dict[str, Any]:
    """What is written down of those for the first name."""
    found: dict[str, Any] = json.loads((kept(gateway) / f"{A}.attempts").read_bytes())
    return found


async def test_a_server_that_is_away_at_first_is_waited_for_with_a_self_signed_certificate(
    gateway_process: Start, site: Site
) -> None:
    gateway = await started(gateway_process, site.toml(A, B))
    assert [site.shown(name).issuer.rfc4514_string() for name in (A, B)] == [f"CN={A}", f"CN={B}"]
    await until(lambda: bool(events(gateway, "certificate.failed")))
    failed = events(gateway, "certificate.failed")[0]
    assert (failed["name"], failed["failures"]) == (A, 1) and failed["again_in_s"] >= 5
    assert "Connection refused" in failed["evidence"]
    assert (await get(gateway.http_port))[0] == 302  # meanwhile all others are served
    await asyncio.to_thread(site.pebble.start)
    await site.issued(A, B)
    site.trusted(A)
    site.trusted(B)
    assert site.serial("unknown.edge.test") == site.serial(A)  # the first is the default
    for path in [*kept(gateway).iterdir(), kept(gateway).parent / "lock"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(kept(gateway).parent.stat().st_mode) == 0o700
    of_name = f'{{name="{A}",directory="{site.pebble.url}"}} 0.0'
    gauges = [f"edge_acme_{word}{of_name}" for word in ("failures", "self_signed")]
    # Told by the issuer, when it has looked after all names.
    await until(lambda: all(gauge in gateway.api("GET", "/metrics")[1] for gauge in gauges))


async def test_each_of_two_workers_answers_the_token_before_all_rules(
    gateway_process: Start, site: Site, validator: Validator
) -> None:
    await asyncio.to_thread(site.pebble.start)
    gateway = await started(gateway_process, validator.toml(site))
    await site.issued(A)
    assert len(validator.asked) >= 2  # it looks several times
    for found in validator.asked:  # each time, 20 connections had one answer
        assert len(found) == 0 or found == validator.asked[0]
    token = "/.well-known/acme-challenge/" + "x" * 43
    assert (await get(gateway.http_port, token))[0] == 302  # another token is a request like all others


async def test_a_certificate_is_renewed_at_two_thirds_of_its_life(gateway_process: Start, tmp_path: Path) -> None:
    life_s = 15
    site = Site(Pebble(tmp_path, free_port(), life_s), free_port())
    try:
        await asyncio.to_thread(site.pebble.start)
        gateway = await started(gateway_process, site.toml(A))
        await site.issued(A)
        first = site.shown(A)
        reader, writer = await asyncio.open_connection(
            LOOPBACK, site.port, ssl=ssl._create_unverified_context(), server_hostname=A
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % A.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 302")
        await until(lambda: site.serial(A) != first.serial_number)
        second = site.shown(A)
        waited = (second.not_valid_before_utc - first.not_valid_before_utc).total_seconds()
        assert waited >= life_s * 2 / 3 - 1
        site.trusted(A)
        writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % A.encode())  # the connection from before lives on
        assert (await reader.readline()).startswith(b"HTTP/1.1 302")
        writer.close()
        await until(lambda: len(events(gateway, "certificate.issued")) > 1)  # told after the file is there
        assert events(gateway, "certificate.failed") == []
    finally:
        site.pebble.stop()


async def test_a_restart_keeps_account_and_certificate(gateway_process: Start, site: Site) -> None:
    await asyncio.to_thread(site.pebble.start)
    gateway = await started(gateway_process, site.toml(A))
    await site.issued(A)
    serial, account = site.serial(A), (kept(gateway) / "account.json").read_bytes()
    await asyncio.to_thread(gateway.stop)
    await asyncio.to_thread(gateway.again)
    assert site.serial(A) == serial
    await until(lambda: issuers(gateway))
    run = await edge(gateway, "certificate", "renew", A)
    assert (run.returncode, run.stderr) == (0, ""), run
    assert run.stdout == f"{A}: renewed ({site.pebble.url})\n"
    assert site.serial(A) != serial  # every worker shows it when the command returns
    site.trusted(A)
    assert (kept(gateway) / "account.json").read_bytes() == account
    unknown = await edge(gateway, "certificate", "renew", "d.edge.test")
    assert unknown.returncode == 1 and "there is no name d.edge.test" in unknown.stderr


@pytest.mark.parametrize("victim", ["issuer", "gateway"])
async def test_a_kill_half_way_costs_no_more_than_another_attempt(
    gateway_process: Start, site: Site, validator: Validator, victim: str
) -> None:
    validator.go_on.clear()
    await asyncio.to_thread(site.pebble.start)
    gateway = await started(gateway_process, validator.toml(site))
    await asyncio.wait_for(validator.begun.wait(), WAIT_S)  # the order is made, and the server looks
    account = (kept(gateway) / "account.json").read_bytes()
    attempt = attempts(gateway)
    assert attempt["failures"] == 1 and attempt["next_at"] - attempt["failed_at"] >= 5  # before anything is known of it
    before = issuers(gateway)
    if victim == "issuer":
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: issuers(gateway) not in ([], before))
        assert events(gateway, "certificate.issuer_died")[0]["code"] == -signal.SIGKILL
    else:
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.again)
    assert site.shown(A).issuer.rfc4514_string() == f"CN={A}"
    now = attempts(gateway)
    assert now == attempt or now["failed_at"] >= attempt["next_at"]  # no hurry after a restart
    validator.go_on.set()
    await site.issued(A)
    assert (kept(gateway) / "account.json").read_bytes() == account
    assert attempts(gateway)["failures"] == 0


async def test_a_reload_with_other_names_touches_no_other_certificate(gateway_process: Start, site: Site) -> None:
    await asyncio.to_thread(site.pebble.start)
    gateway = await started(gateway_process, site.toml(A, B))
    await site.issued(A, B)
    serial = site.serial(B)
    site.pebble.stop()
    await reload(gateway, site.toml(B, C))
    assert site.serial(B) == serial == site.serial(A)  # A has none any more: the default
    assert site.shown(C).issuer.rfc4514_string() == f"CN={C}"  # at once, whatever the server does
    await asyncio.to_thread(site.pebble.start)  # it has forgotten the account
    await site.issued(C)
    assert site.serial(B) == serial
    await reload(gateway, site.toml(C).replace("[[listen.https]]", "#").replace("address = ", "#").replace("acme", "#"))
    await until(lambda: not issuers(gateway))  # nothing is left to be issued


async def test_an_upgrade_hands_the_issuing_over(gateway_process: Start, site: Site) -> None:
    await asyncio.to_thread(site.pebble.start)
    gateway = await started(gateway_process, site.toml(A))
    await site.issued(A)
    before, serial, account = issuers(gateway), site.serial(A), (kept(gateway) / "account.json").read_bytes()
    status, found = await api(gateway, "POST", "/v1/upgrade")
    assert status == 200, found
    await until(lambda: not gateway.running)  # the old program
    assert site.serial(A) == serial
    await until(lambda: issuers(gateway) not in ([], before))
    run = await edge(gateway, "certificate", "renew")
    assert (run.returncode, run.stdout) == (0, f"{A}: renewed ({site.pebble.url})\n"), run
    after = issuers(gateway)
    assert len(after) == 1 and after != before
    site.trusted(A)
    assert site.serial(A) != serial and (kept(gateway) / "account.json").read_bytes() == account


async def test_a_damaged_file_is_replaced_and_the_gateway_starts(gateway_process: Start, site: Site) -> None:
    gateway = await started(gateway_process, site.toml(A))
    (kept(gateway) / f"{A}.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")
    await asyncio.to_thread(gateway.stop)
    await asyncio.to_thread(site.pebble.start)
    await asyncio.to_thread(gateway.again)
    assert [event["name"] for event in events(gateway, "certificate.damaged")] == [A]
    await site.issued(A)
