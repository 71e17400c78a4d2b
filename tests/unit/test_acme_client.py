"""What a server of certificates may do that it should not: every way ends as `AcmeFailed` with one line, and soon.

One rule: the server here is a script over real TLS; the good ones are pebble's (tests/integration/test_acme.py).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from kit.ports import LOOPBACK
from kit.threaded import QuietHandler, ThreadedServer

from edge.adapters.acme_client import MAX_BYTES, AcmeFailed, AcmeServer
from edge.adapters.acme_files import Account
from edge.adapters.certificate_pem import NotUsable, joined, new_key, self_signed
from edge.config.acme import Acme

NAME = "a.edge.test"
Answer = tuple[int, dict[str, str], bytes]
Script = Callable[[str, str], Answer | None]  # method, path; None: the connection is cut


class Scripted(ThreadedServer):
    """`script` says what is answered; `asked` is what came."""

    def __init__(self, folder: Path) -> None:
        self.script: Script = lambda method, path: (404, {}, b"")
        self.asked: list[tuple[str, str]] = []
        authority, whole = trustme.CA(), self
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.0"  # a connection for each request: one without an answer ends

            def do_GET(self) -> None:
                self.body()
                whole.asked.append((self.command, self.path))
                found = whole.script(self.command, self.path)
                if found is None:
                    return
                status, fields, body = found
                self.answer(status, {"Replay-Nonce": "bm9uY2U", **fields}, body)

            do_HEAD = do_POST = do_GET

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOOPBACK).configure_cert(context)
        super().__init__(Handler, context)
        self.url = f"https://{LOOPBACK}:{self.port}"

    def directory(self, **more: Any) -> bytes:
        places = {word: f"{self.url}/{word}" for word in ("newNonce", "newAccount", "newOrder", "revokeCert")}
        return json.dumps({**places, **more}).encode()

    def client(self, account: Account | None = None) -> tuple[AcmeServer, list[Account]]:
        kept: list[Account] = []
        values = Acme(directory=f"{self.url}/dir", names=[NAME], ca=str(self.ca))  # type: ignore[arg-type]
        return AcmeServer(values, account, kept.append), kept

    def failure(self) -> AcmeFailed:
        """Of an attempt."""
        with pytest.raises(AcmeFailed) as failed:
            self.client()[0].issue(NAME, lambda tokens: None)
        assert "\n" not in failed.value.detail and 10 < len(failed.value.detail) <= 300
        return failed.value


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    yield found
    found.stop()


GARBAGE: dict[str, Answer | None] = {
    "no JSON": (200, {}, b"<html>captive portal</html>"),
    "a list": (200, {}, b"[1, 2]"),
    "nothing": (200, {}, b""),
    "an empty object": (200, {}, b"{}"),
    "numbers for places": (200, {}, b'{"newNonce": 1, "newAccount": 2, "newOrder": 3}'),
    "places of another scheme": (200, {}, b'{"newNonce": "file:///etc/passwd", "newAccount": "x", "newOrder": "y"}'),
    "deep JSON": (200, {}, b"[" * 100_000),
    "a large body": (200, {}, b" " * (MAX_BYTES + 1)),
    "bytes": (200, {"Content-Encoding": "gzip"}, b"\xff\x00" * 50),
    "a cut connection": None,
    "500": (500, {}, b"oops"),
    "404": (404, {}, b""),
    "a problem of no form": (400, {"Content-Type": "application/problem+json"}, b'{"type": 7}'),
}


@pytest.mark.parametrize("word", GARBAGE)
def test_garbage_for_a_directory(server: Scripted, word: str) -> None:
    server.script = lambda method, path: GARBAGE[word]
    assert not server.failure().refused or word.startswith("a problem")


@pytest.mark.parametrize("word", GARBAGE)
def test_garbage_after_the_directory(server: Scripted, word: str) -> None:
    server.script = lambda method, path: (200, {}, server.directory()) if path == "/dir" else GARBAGE[word]
    server.failure()


@pytest.mark.parametrize("word", GARBAGE)
def test_garbage_for_an_order(server: Scripted, word: str) -> None:
    def script(method: str, path: str) -> Answer | None:
        if path == "/dir":
            return 200, {}, server.directory()
        if path == "/newAccount":
            return 201, {"Location": f"{server.url}/account/1"}, b'{"status": "valid"}'
        return (200, {}, b"") if method == "HEAD" else GARBAGE[word]

    server.script = script
    server.failure()
    assert ("POST", "/newOrder") in server.asked


def test_a_server_that_is_asked_too_often_says_how_long_to_wait(server: Scripted) -> None:
    said = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\r\ncertificates", "status": 429}
    limited = {"Retry-After": "7200", "Content-Type": "application/problem+json"}
    server.script = lambda method, path: (
        (200, {}, server.directory())
        if path == "/dir" or method == "HEAD"
        else (429, limited, json.dumps(said).encode())
    )
    failed = server.failure()
    assert (failed.refused, failed.wait_s) == (True, 7200.0)
    assert failed.detail == "the server said rateLimited: too many certificates"


def test_a_server_that_is_busy_is_no_refusal(server: Scripted) -> None:
    server.script = lambda method, path: (503, {"Retry-After": "30"}, b"busy")
    failed = server.failure()
    assert (failed.refused, failed.wait_s) == (False, 30.0)


def test_one_that_cannot_be_trusted_is_not_told_anything(server: Scripted, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(server.ca)
    assert "CERTIFICATE_VERIFY_FAILED" in server.failure().detail
    assert server.asked == []


def test_one_that_wants_accounts_made_elsewhere_is_named(server: Scripted) -> None:
    server.script = lambda method, path: (200, {}, server.directory(meta={"externalAccountRequired": True}))
    failed = server.failure()
    assert failed.refused and "accounts that were made elsewhere" in failed.detail


def test_the_account_is_kept_before_it_is_used_and_again_with_its_place(server: Scripted) -> None:
    def script(method: str, path: str) -> Answer:
        if path == "/newAccount":
            return 200, {"Location": f"{server.url}/account/1"}, b"{}"  # it is known: a kill came before
        return 200, {}, server.directory() if path == "/dir" else b"nonsense"

    server.script = script
    client, kept = server.client()
    assert [each.uri for each in kept] == [""]
    with pytest.raises(AcmeFailed):
        client.issue(NAME, lambda tokens: None)
    assert [each.uri for each in kept] == ["", f"{server.url}/account/1"]
    assert kept[0].key == kept[1].key
    again, more = server.client(kept[1])
    with pytest.raises(AcmeFailed):
        again.issue(NAME, lambda tokens: None)
    assert more == [] and server.asked.count(("POST", "/newAccount")) == 1
    _, fresh = server.client(Account("{damaged", "x"))
    assert fresh[0].uri == "" and fresh[0].key != kept[0].key


@pytest.mark.parametrize("days", [1, 40])
def test_a_suggestion_is_a_moment_within_the_servers_window(server: Scripted, tmp_path: Path, days: int) -> None:
    begins = datetime.now(UTC) + timedelta(days=days)
    window = {"start": begins.isoformat(), "end": (begins + timedelta(hours=2)).isoformat()}
    server.script = lambda method, path: (
        (200, {}, server.directory(renewalInfo=f"{server.url}/ari"))
        if path == "/dir"
        else (200, {"Retry-After": "600"}, json.dumps({"suggestedWindow": window}).encode())
    )
    pem = trustme.CA().issue_cert(NAME).cert_chain_pems[0].bytes()
    at, again = server.client()[0].suggestion(pem)
    assert at is not None and begins.timestamp() <= at <= begins.timestamp() + 7200
    assert 500 < again - datetime.now(UTC).timestamp() <= 600
    assert server.asked[-1][1].startswith("/ari/")


@pytest.mark.parametrize("word", GARBAGE)
def test_garbage_for_a_suggestion(server: Scripted, word: str) -> None:
    server.script = lambda method, path: (
        (200, {}, server.directory(renewalInfo=f"{server.url}/ari")) if path == "/dir" else GARBAGE[word]
    )
    with pytest.raises(AcmeFailed):
        server.client()[0].suggestion(trustme.CA().issue_cert(NAME).cert_chain_pems[0].bytes())


def test_what_came_must_be_what_was_asked_for() -> None:
    now, key = datetime.now(UTC).timestamp(), new_key()
    own = self_signed(NAME, now)
    split = own.index(b"-----BEGIN CERTIFICATE")
    assert joined(own[:split], own[split:], NAME, now) == own
    for chain, told in (
        (b"", "no certificate"),
        (b"<html>", "no certificate"),
        (own[split:-40], "no certificate"),
    ):
        with pytest.raises(NotUsable, match=told):
            joined(own[:split], chain, NAME, now)
    with pytest.raises(NotUsable, match="another key"):
        joined(key, own[split:], NAME, now)
    with pytest.raises(NotUsable, match=r"not for b\.edge\.test"):
        joined(own[:split], own[split:], "b.edge.test", now)
    with pytest.raises(NotUsable, match="ended"):
        joined(own[:split], own[split:], NAME, now + 365 * 86400)
