"""`auth` through a running worker: passwords, tokens, a service that knows; closed whatever goes wrong."""

from __future__ import annotations

import hmac
import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from threading import Event
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from inprocess import Connect, Proxy, StartEdge, StartOrigins, edge_toml
from kit.origin import Pause, ScriptedOrigin, Step
from kit.waiting import WAIT_S, until

from edge.dataplane.rules.passwords import PasswordFile
from edge.errors import ConfigError

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"
PRIVATE_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": b"a shared secret of more than 32 bytes!",
}
KINDS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def basic(name: str, password: str) -> str:
    return "Authorization: Basic " + b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """A file as the real tool makes it."""
    assert shutil.which("htpasswd"), "these tests need htpasswd (Debian's package apache2-utils)"
    path = tmp_path / "htpasswd"
    for flags, name, password in (("-cbB", "alice", "secret"), ("-bB", "bob", "ünïcode")):
        subprocess.run(["htpasswd", flags, str(path), name, password], check=True, capture_output=True)
    return path


def without_alice(passwords: Path) -> Path:
    """The same file without its first line."""
    path = passwords.with_name("without-alice")
    path.write_text("".join(passwords.read_text().splitlines(keepends=True)[1:]))
    return path


# -- passwords ---------------------------------------------------------------------------------------------------------


async def test_a_password_is_asked_for_and_known_after(
    passwords: Path, origin: ScriptedOrigin, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.dataplane.rules.authentication.WRONG_S", 600.0)
    gateway, client = await proxy(route=f'cache = false\nauth = {{ basic = "{passwords}", realm = "members" }}')
    auth = gateway.worker.router.routes[0].steps[0]
    checked: list[bytes] = []
    inner = auth._passwords.check  # type: ignore[attr-defined]
    auth._passwords.check = lambda n, p: (checked.append(n), inner(n, p))[1]  # type: ignore[attr-defined]
    for lines in ((), ("Authorization: Bearer x",), ("Authorization: Basic !!",), ("Authorization: Basic YQ==",)):
        found = await client.ask("/x", *lines)
        assert (found.status, found.get(b"www-authenticate")) == (401, b'Basic realm="members", charset="UTF-8"')
    assert not checked
    for pair, status in ((("alice", "secret"), 200), (("alice", "wrong"), 401), (("mallory", "secret"), 401)):
        for _ in range(3):
            assert (await client.ask("/x", basic(*pair))).status == status
    assert (await client.ask("/x", basic("bob", "ünïcode"))).status == 200
    assert checked == [b"alice", b"alice", b"mallory", b"bob"], "one hash for each, wrong ones too"
    assert len(origin.requests) == 4


async def test_many_who_wait_for_one_password_wait_together(
    passwords: Path, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, route=f'cache = false\nauth = {{ basic = "{passwords}" }}'))
    clients = [await raw_client(gateway.port) for _ in range(8)]
    for client in clients:
        await client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{basic('alice', 'secret')}\r\n\r\n".encode())
    for client in clients:
        found = await client.read_response()
        assert found is not None and found.status == 200


async def test_what_members_get_is_never_shared(passwords: Path, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"max-age", b"public, max-age"),)
    _, client = await proxy(route=f'auth = {{ basic = "{passwords}" }}')
    for _ in range(2):
        for pair in (("alice", "secret"), ("bob", "ünïcode")):
            assert (await client.ask("/x", basic(*pair))).status == 200
    assert len(origin.requests) == 2, "each has its own"
    assert (await client.ask("/x")).status == 401


async def test_who_is_known_on_one_route_is_not_on_another(
    passwords: Path, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    others = without_alice(passwords)
    second = f'[[routes]]\npath = "/bob"\npool = "origin"\ncache = false\nauth = {{ basic = "{others}" }}'
    _, client = await proxy(route=f'cache = false\nauth = {{ basic = "{passwords}" }}\n{second}')
    for _ in range(4):
        found = [(await client.ask(path, basic("alice", "secret"))).status for path in ("/x", "/bob/x")]
        assert found == [200, 401], "the same head each time"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("alice:$apr1$abcdefgh$abcdefghijklmnopqrstuv", "too weak or unknown"),
        ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "too weak or unknown"),
        ("alice", "expected name:hash"),
    ],
)
async def test_a_weak_hash_is_refused(line: str, wanted: str, tmp_path: Path, edge: StartEdge) -> None:
    path = tmp_path / "weak"
    path.write_text(f"# members\n{line}\n")
    with pytest.raises(ConfigError, match=f"weak:2: .*{wanted}"):
        await edge(edge_toml(1, route=f'auth = {{ basic = "{path}" }}'))


async def test_argon2_hashes_count_too(tmp_path: Path, origin: ScriptedOrigin, proxy: Proxy) -> None:
    import argon2

    path = tmp_path / "argon"
    path.write_text("carol:" + argon2.PasswordHasher(time_cost=1, memory_cost=64).hash("secret") + "\n")
    _, client = await proxy(route=f'cache = false\nauth = {{ basic = "{path}" }}')
    assert [(await client.ask("/", basic("carol", each))).status for each in ("secret", "Secret")] == [200, 401]


async def test_a_client_that_leaves_while_its_password_is_checked(
    passwords: Path, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, goes_on, check = Event(), Event(), PasswordFile.check

    def slow(file: PasswordFile, name: bytes, password: bytes) -> bool:
        began.set()
        return goes_on.wait(WAIT_S) and check(file, name, password)

    monkeypatch.setattr(PasswordFile, "check", slow)
    gateway = await edge(edge_toml(origin.port, route=f'cache = false\nauth = {{ basic = "{passwords}" }}'))
    client = await raw_client(gateway.port)
    await client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{basic('alice', 'secret')}\r\n\r\n".encode())
    await until(began.is_set)
    client.reset()
    await until(lambda: gateway.requests == 1)
    goes_on.set()
    other = await raw_client(gateway.port)
    assert (await other.ask("/", basic("alice", "secret"))).status == 200
    assert len(origin.requests) == 1


# -- tokens ------------------------------------------------------------------------------------------------------------


def key_set(*algorithms: str, **more: Any) -> str:
    """The public halves."""
    keys = []
    for name in algorithms:
        if name == "HS256":
            entry = {"kty": "oct", "k": jwt.utils.base64url_encode(PRIVATE_KEYS[name]).decode()}
        else:
            entry = json.loads(KINDS[name].to_jwk(PRIVATE_KEYS[name].public_key()))
        keys.append({**entry, "kid": name, "use": "sig", **more})
    return json.dumps({"keys": keys})


def token(algorithm: str, key: Any = None, kid: str | None = None, **claims: Any) -> str:
    own = {"sub": "alice", "exp": time() + 60, "iss": "https://login", "aud": "web", **claims}
    secret = PRIVATE_KEYS.get(algorithm) if key is None else key
    return jwt.encode({k: v for k, v in own.items() if v is not None}, secret, algorithm, {"kid": kid or algorithm})


def jwt_rule(where: str, more: str = "") -> str:
    keys = f'jwks = "{where}", issuer = "https://login", audience = "web"'
    return f'auth = {{ jwt = {{ {keys}, headers = {{ X-User = "sub", X-Roles = "roles" }}{more} }} }}'


@pytest.mark.parametrize("algorithm", list(PRIVATE_KEYS))
async def test_a_token_of_each_kind_of_key(
    algorithm: str, tmp_path: Path, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    (tmp_path / "jwks.json").write_text(key_set(*PRIVATE_KEYS))
    _, client = await proxy(route="cache = false\n" + jwt_rule(f"{tmp_path}/jwks.json"))
    bearer = f"Authorization: Bearer {token(algorithm, roles=['a', 'b'])}"
    for _ in range(2):
        assert (await client.ask("/x", bearer, "X-User: mallory", "X-Roles: root")).status == 200
    for request in origin.requests:
        assert (request.get(b"x-user"), request.get(b"x-roles")) == (b"alice", b"a,b")
    assert (await client.ask("/x")).get(b"www-authenticate") == b"Bearer"


def by_hand(head: dict[str, str], key: bytes) -> str:
    """A token whose algorithm is for the one who makes it to say."""
    claims = {"sub": "a", "exp": time() + 60, "iss": "https://login", "aud": "web"}
    parts = [jwt.utils.base64url_encode(json.dumps(each).encode()) for each in (head, claims)]
    signature = hmac.digest(key, b".".join(parts), "sha256") if key else b""
    return b".".join([*parts, jwt.utils.base64url_encode(signature)]).decode()


def wrong_tokens() -> list[str]:
    """What nobody may pass with."""
    public = PRIVATE_KEYS["RS256"].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return [
        by_hand({"alg": "none", "kid": "RS256"}, b""),
        by_hand({"alg": "None"}, b""),
        by_hand({"alg": "HS256", "kid": "RS256"}, pem),
        by_hand({"alg": "HS256", "kid": "RS256"}, key_set("RS256").encode()),
        token("RS256", exp=time() - 600),
        token("RS256", exp=None),
        token("RS256", nbf=time() + 600),
        token("RS256", iss="https://else"),
        token("RS256", aud="app"),
        token("RS256", aud=None),
        token("RS256", kid="unknown"),
        token("RS256", key=rsa.generate_private_key(65537, 2048)),
        token("ES256", kid="RS256"),
        token("RS256")[:-4] + "AAAA",
        "a.b.c",
        "x" * 3000,
    ]


async def test_what_is_wrong_with_a_token_is_401(tmp_path: Path, origin: ScriptedOrigin, proxy: Proxy) -> None:
    (tmp_path / "jwks.json").write_text(key_set("RS256", "ES256"))
    _, client = await proxy(route="cache = false\n" + jwt_rule(f"{tmp_path}/jwks.json"))
    for each in wrong_tokens():
        found = await client.ask("/x", f"Authorization: Bearer {each}")
        assert (found.status, found.get(b"www-authenticate")) == (401, b'Bearer error="invalid_token"'), each
    assert not origin.requests


async def test_a_token_in_a_cookie_and_claims_that_would_break_a_line(
    tmp_path: Path, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    (tmp_path / "jwks.json").write_text(key_set("ES256"))
    _, client = await proxy(route="cache = false\n" + jwt_rule(f"{tmp_path}/jwks.json", ', cookie = "session"'))
    evil = token("ES256", sub="a\r\nX-Admin: 1", roles={"a": 1})
    assert (await client.ask("/x", f"Cookie: a=b; session={evil}")).status == 200
    assert origin.requests[0].get(b"x-user") == b"aX-Admin: 1"
    assert origin.requests[0].get(b"x-admin") is None and origin.requests[0].get(b"x-roles") is None


def reply(text: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


async def test_keys_are_fetched_once_and_again_when_they_rotate(origins: StartOrigins, proxy: Proxy) -> None:
    login = await origins()
    login.default = (reply(key_set("RS256")),)
    gateway, client = await proxy(route="cache = false\n" + jwt_rule(f"{login.url}/jwks.json"))
    for _ in range(3):
        assert (await client.ask("/x", f"Authorization: Bearer {token('RS256', jti=str(_))}")).status == 200
    assert login.targets() == [b"/jwks.json"]
    login.default = (reply(key_set("ES256")),)
    keys = gateway.worker.router.routes[0].steps[0]._keys  # type: ignore[attr-defined]
    rotated = f"Authorization: Bearer {token('ES256')}"
    keys._asked_at += 60  # it stays a moment ago, however slow the machine is
    assert (await client.ask("/x", rotated)).status == 401, "asked for a moment ago"
    keys._asked_at -= 120
    assert (await client.ask("/x", f"Authorization: Bearer {token('ES256', jti='x')}")).status == 200
    assert len(login.requests) == 2


@pytest.mark.parametrize("broken", [(Step.RESET,), (reply("{}"),), (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",)])
async def test_without_keys_it_is_503(
    broken: tuple[Any, ...], origin: ScriptedOrigin, origins: StartOrigins, proxy: Proxy
) -> None:
    login = await origins()
    login.default = broken
    gateway, client = await proxy(route="cache = false\n" + jwt_rule(f"{login.url}/jwks.json"))
    assert (await client.ask("/x", f"Authorization: Bearer {token('RS256')}")).status == 503
    assert not origin.requests
    assert (await gateway.log(1))[0]["reason"] == "auth-unavailable"


async def test_a_shared_secret_from_a_url_is_no_key(origins: StartOrigins, proxy: Proxy) -> None:
    login = await origins()
    login.default = (reply(key_set("HS256", "RS256")),)
    _, client = await proxy(route="cache = false\n" + jwt_rule(f"{login.url}/jwks.json"))
    assert (await client.ask("/x", f"Authorization: Bearer {token('HS256')}")).status == 401


# -- a service that knows ----------------------------------------------------------------------------------------------

ALLOW = b"HTTP/1.1 200 OK\r\nX-User: alice\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n"
LOGIN = (
    b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nSet-Cookie: a=b\r\nX-Inner: 1\r\n"
    b"Content-Length: 5\r\n\r\nlogin"
)


def forward_rule(port: int, timeout: str = "60s") -> str:
    return f'auth = {{ forward = "http://127.0.0.1:{port}/verify?a=b", copied = ["X-User"], timeout = "{timeout}" }}'


async def test_a_service_lets_pass_and_says_who(origin: ScriptedOrigin, origins: StartOrigins, proxy: Proxy) -> None:
    service = await origins()
    service.default = (ALLOW,)
    _, client = await proxy(route="cache = false\n" + forward_rule(service.port))
    for _ in range(2):
        lines = (
            "Cookie: s=1",
            "X-User: mallory",
            "X-Forwarded-Uri: /other",
            'If-None-Match: "a"',
            "Accept-Encoding: br",
        )
        found = await client.ask("/p?q=1", *lines, method="PUT")
        assert found.status == 200
    asked = service.requests[0]
    assert (asked.get(b"if-none-match"), asked.get(b"accept-encoding")) == (None, None)
    assert (asked.method, asked.target, asked.get(b"cookie")) == (b"GET", b"/verify?a=b", b"s=1")
    assert (asked.get(b"x-forwarded-method"), asked.get(b"x-forwarded-uri")) == (b"PUT", b"/p?q=1")
    assert (asked.get(b"x-forwarded-for"), asked.get(b"host")) == (b"127.0.0.1", b"127.0.0.1:%d" % service.port)
    assert {request.connection for request in service.requests} == {1}, "over a kept connection"
    assert [(r.get(b"x-user"), r.get(b"x-other")) for r in origin.requests] == [(b"alice", None)] * 2


async def test_what_else_a_service_says_is_the_clients(origins: StartOrigins, proxy: Proxy) -> None:
    service = await origins()
    service.default = (LOGIN,)
    gateway, client = await proxy(route="cache = false\n" + forward_rule(service.port))
    found = await client.ask("/x")
    assert (found.status, found.get(b"location"), found.body.content) == (302, b"https://login.example/", b"login")
    assert (found.get(b"set-cookie"), found.get(b"x-inner")) == (b"a=b", None)
    assert (await gateway.log(1))[0]["reason"] == "unauthorized"


@pytest.mark.parametrize(
    "broken",
    [
        (Step.RESET,),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", Step.CLOSE),
        (b"HTTP/1.1 200 OK\r\nBad Line\r\n\r\n",),
        (Step.SILENCE,),
    ],
)
async def test_a_service_that_is_away_lets_nobody_pass(
    broken: tuple[Any, ...], origin: ScriptedOrigin, origins: StartOrigins, proxy: Proxy
) -> None:
    service = await origins()
    service.default = broken
    gateway, client = await proxy(route="cache = false\n" + forward_rule(service.port, "1s"))
    assert (await client.ask("/x")).status == 503
    assert not origin.requests
    assert (await gateway.log(1))[0]["reason"] == "auth-unavailable"


async def test_members_of_a_service_share_nothing(origin: ScriptedOrigin, origins: StartOrigins, proxy: Proxy) -> None:
    service = await origins()
    service.default = (ALLOW.replace(b"X-User: alice\r\n", b""),)
    origin.default = (FRESH,)
    _, client = await proxy(route=forward_rule(service.port))
    for _ in range(2):
        for who in ("a", "b"):
            assert (await client.ask("/x", f"Cookie: session={who}")).status == 200
    assert len(origin.requests) == 2


async def test_a_body_waits_for_the_service(origin: ScriptedOrigin, origins: StartOrigins, proxy: Proxy) -> None:
    service = await origins()
    service.default = (Pause("ask"), ALLOW)
    _, client = await proxy(route="cache = false\n" + forward_rule(service.port))
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
    await service.wait_for("requests", 1)
    service.release("ask")
    await client.send(b"x" * 100_000)
    found = await client.read_response(b"POST")
    assert found is not None and found.status == 200
    body = origin.requests[0].body
    assert body is not None and len(body.content) == 200_000


async def test_a_client_that_leaves_asks_no_more(
    origin: ScriptedOrigin, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    service = await origins()
    service.default = (Pause("ask"), ALLOW)
    gateway = await edge(edge_toml(origin.port, route="cache = false\n" + forward_rule(service.port)))
    client = await raw_client(gateway.port)
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await service.wait_for("requests", 1)
    client.reset()
    await until(lambda: gateway.requests == 1)
    await until(lambda: service.open_connections == 0)
    assert not origin.requests
