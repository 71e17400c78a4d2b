"""The OpenAPI document is true: valid, complete both ways, and a running gateway answers as it says, whatever is asked.

One rule: requests are made up from the document itself, by a seeded chance: well-formed ones, and ones that are spoiled
in one place. No answer may be of a status, a content type or a shape that is not in the document, and none a bug.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient
from jsonschema import Draft202012Validator
from kit.admin import TOKEN, admin_client
from kit.control import TWO_WORKERS
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK, free_ports
from kit.waiting import WAIT_S
from openapi_spec_validator import OpenAPIV31SpecValidator

from edge.control.access import Access, Role, Token, permits
from edge.control.admin.application import admin_app, start_admin
from edge.control.admin.openapi import OPERATIONS, Operation, document

TOML = (
    TWO_WORKERS
    + """
[regions.eu]
[regions.us]
[cache]
disk = { path = "@STATE@/cache", size = "64MiB" }
[pools.web]
backends = [{ url = "http://127.0.0.1:@ORIGIN@", region = "eu" }, { url = "http://127.0.0.1:9", region = "us" }]
[[routes]]
name = "all"
pool = "web"
[routes.cache]
[[routes]]
name = "ruled"
host = "rules.example"
pool = "web"
deny = ["192.0.2.0/24"]
redirect = { to = "https://{host}{uri}", status = 308 }
"""
)
KNOWN = {
    "name": ["eu", "us", "gone", "ne w", "é", "a/b", "x" * 300],
    "pool": ["web", "none"],
    "id": ["127.0.0.1:9", "gone", "1", "0", "99999999999999999999", "-1", "x"],
    "file": ["app.js", "vendor/uPlot.js", "../../access.py", "none.js"],
    "url": [
        "http://www.example.com/a",
        "http://rules.example/a",
        "http://[",
        "ftp://x/",
        "http://www.example.com/é",
        "/only",
    ],
    "client": ["192.0.2.1", "2001:db8::1", "nobody"],
    "method": ["GET", "POST", "BREW"],
    "state": ["active", "draining", "inactive"],
}
CALM = {("GET", "/v1/events")}  # asked for with follow=0: a stream has no end
STATUS = re.compile(r"[1-5]XX")


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references."""
    while "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def made(schema: dict[str, Any], chance: random.Random, name: str = "") -> Any:
    """A value of a schema; known names where there are any."""
    schema = resolve(schema)
    if "anyOf" in schema:
        return made(chance.choice(schema["anyOf"]), chance, name)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            keys = [key for key in schema.get("properties", {}) if key in required or chance.random() < 0.3]
            return {key: made(schema["properties"][key], chance, key) for key in keys}
        case "array":
            low = schema.get("minItems", 0)
            return [made(schema["items"], chance, name) for _ in range(chance.randint(low, low + 3))]
        case "integer":
            return chance.randint(schema.get("minimum", 0), min(schema.get("maximum", 1000), 1000))
        case "number":
            return round(chance.uniform(0, 100), 3)
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
    if name == "expires":
        return chance.choice(["5m", "1h", "soon"])
    return chance.choice(
        KNOWN.get(name, ["a", "www.example.com", "http://www.example.com/x", "tag-1", "web/127.0.0.1:9"])
    )


def spoiled(value: Any, chance: random.Random) -> Any:
    """The same with one thing wrong."""
    wrong = [
        None,
        -1,
        10**30,
        1.5,
        True,
        "",
        "\x00",
        "<script>",
        [],
        {},
        [[]],
        {"a": {"b": []}},
        "é" * 600,
        [None] * 50,
    ]
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice([*value, "unknown"])
        return {**value, key: spoiled(value.get(key), chance)}
    return chance.choice(wrong)


@pytest_asyncio.fixture
async def client(origin: ScriptedOrigin, tmp_path: Path) -> AsyncIterator[TestClient[Any, Any]]:
    async with admin_client(TOML.replace("@ORIGIN@", str(origin.port)).replace("@STATE@", str(tmp_path))) as found:
        yield found.client


def test_the_document_is_openapi() -> None:
    OpenAPIV31SpecValidator(document()).validate()
    ids = [each["operationId"] for path in document()["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_each_endpoint_stands_in_it_and_no_other() -> None:
    nobody: Any = None  # only the routes are looked at
    app = admin_app(nobody, Access([]))
    there = {(route.method, _path(route.resource)) for route in app.router.routes() if route.method != "HEAD"}
    assert there == {(each.method, each.path) for each in OPERATIONS}


def _path(resource: web.AbstractResource | None) -> str:
    assert resource is not None
    return re.sub(r":[^}]*\}", "}", resource.canonical)


def test_each_listed_thing_can_be_asked_for_alone() -> None:
    paths = {each.path for each in OPERATIONS if each.method == "GET"}
    for listed in ("regions", "pools", "pools/{pool}/backends", "snapshots", "events", "audit"):
        assert any(re.fullmatch(rf"/v1/{re.escape(listed)}/\{{\w+\}}", path) for path in paths), listed


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
def test_roles_are_as_told(operation: Operation) -> None:
    said = document()["paths"][operation.path][operation.method.lower()]["x-edge-role"]
    order = list(Role)
    for role in Role:
        allowed = said is None or order.index(role) >= order.index(Role(said))
        assert permits(role, operation.method, operation.path) or operation.open or not allowed


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
async def test_answers_are_as_told_whatever_is_asked(operation: Operation, client: TestClient[Any, Any]) -> None:
    chance = random.Random(f"{operation.method} {operation.path}")
    for number in range(40):
        wrong = number % 2 == 1
        path = re.sub(r"\{(\w+)\}", lambda found: quote(chance.choice(KNOWN[found[1]]), safe=""), operation.path)
        query = {
            name: str(made(schema, chance, name))
            for name, schema in operation.query.items()
            if name in operation.required or chance.random() < 0.4
        }
        if (operation.method, operation.path) in CALM:
            query["follow"] = "0"
        if query and wrong and not operation.body:
            query[chance.choice(list(query))] = chance.choice(["", "-1", "x" * 5000, "\x00", "9" * 30, "%", "NaN"])
            if (operation.method, operation.path) in CALM:
                query["follow"] = "0"
        body = made({"$ref": f"#/{operation.body}"}, chance) if operation.body else None
        if operation.body and wrong:
            body = spoiled(body, chance)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with client.request(operation.method, path, params=query, data=data, headers=headers) as response:
            text = await response.text()
            check(operation, response.status, response.content_type, text, f"{path} {query} {data!r}")


def check(operation: Operation, status: int, content_type: str, text: str, asked: str) -> None:
    """One answer against the document."""
    responses = document()["paths"][operation.path][operation.method.lower()]["responses"]
    assert status != 500, f"{asked}: {text}"
    told = responses.get(str(status)) or responses.get(f"{status // 100}XX")
    assert told is not None, f"{asked}: {status} {text[:300]}"
    if "$ref" in told:
        told = document()["components"]["responses"]["Problem"]
    content = told["content"]
    assert content_type in content or "*/*" in content, f"{asked}: {status} {content_type}"
    if content_type.endswith("json"):
        schema = {**content[content_type]["schema"], "components": document()["components"]}
        errors = list(Draft202012Validator(schema).iter_errors(json.loads(text)))
        assert not errors, f"{asked}: {[(list(error.absolute_path), error.message[:300]) for error in errors[:3]]}"


async def test_errors_before_any_endpoint_are_problems_too(client: TestClient[Any, Any]) -> None:
    for method, path, headers, status in (
        ("GET", "/v1/status", {}, 401),
        ("GET", "/v1/status", {"Authorization": "Bearer x"}, 401),
        ("GET", "/v1/status", {"Host": "evil.example"}, 421),
        ("GET", "/v1/none", {"Authorization": f"Bearer {TOKEN}"}, 404),
        ("DELETE", "/v1/status", {"Authorization": f"Bearer {TOKEN}"}, 405),
    ):
        async with client.request(method, path, headers=headers) as response:
            assert (response.status, response.content_type) == (status, "application/problem+json")
            found = json.loads(await response.text())
            assert found["status"] == status and found["detail"]


async def test_bytes_that_are_no_http_get_a_problem_as_well() -> None:
    port = free_ports(1)[0]
    nobody: Any = SimpleNamespace(admin_answers={})  # nothing gets as far as a supervisor
    app = admin_app(nobody, Access([Token(TOKEN)]))
    runner = await start_admin(app, LOOPBACK, port, 16, WAIT_S)
    try:
        for data in (
            b"\x16\x03\x01\x00\x05hello\r\n",
            b"GET /v1/status",
            b"BREW /v1/status HTTP/1.1\r\nHost: a",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000,
        ):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(data + b"\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), WAIT_S)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 400 " in head or b" 421 " in head, answer
            assert b"application/problem+json" in head, answer
            assert json.loads(body)["status"] in (400, 421)
            writer.close()
            await writer.wait_closed()
        assert nobody.admin_answers == {421: 1}  # HTTP/0.9 has no Host
    finally:
        await runner.cleanup()
