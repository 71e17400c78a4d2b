"""The OpenAPI document of the admin API, made from one table of operations.

One rule: the table is the document and nothing else; the tests hold it against the router (each endpoint stands here,
and only those), against the roles (`access.permits`) and against what a running gateway answers to made-up requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from edge import __version__
from edge.control.access import Role, permits
from edge.control.admin.schemas import ANY, COUNT, SCHEMAS, STR, Schema, arr, listed, obj, ref, table
from edge.control.admin.schemas_certificates import CERTIFICATES
from edge.control.admin.schemas_fleet import FLEET
from edge.control.admin.steps import LINES

NEEDED = ("PurgeBody", "StateBody", "BackendBody", "WarmBody", "SimulateBody")  # bodies that cannot be left out
_IN_PATH = re.compile(r"\{([a-z]+)\}")
_PAGED: dict[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "after": STR,
}
_NUMBERED = {**_PAGED, "after": {"type": "integer", "minimum": 0}}
_SAID = {"actor": STR, "reason": STR, "force": {"type": "boolean"}}
_ID = {"type": "integer", "minimum": 0, "maximum": 2**53}


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. `answers`: status → schema, for JSON; `text`: another content type of 200."""

    method: str
    path: str
    summary: str
    answers: dict[int, Schema] = field(default_factory=dict)
    query: dict[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    body: str = ""
    text: tuple[str, ...] = ()
    open: bool = False

    @property
    def role(self) -> Role | None:
        """The least that a token has to be; None where none is needed."""
        if self.open:
            return None
        return next(role for role in Role if permits(role, self.method, self.path))


def _get(path: str, summary: str, answer: Schema, **more: Any) -> Operation:
    return Operation("GET", path, summary, {200: answer}, **more)


_REGION, _POOL = "/v1/regions/{name}", "/v1/pools/{pool}"
_BACKEND, _POINT = f"{_POOL}/backends/{{id}}", "/v1/snapshots/{id}"
_REMOVED = obj({"removed": STR})
_DONE: Schema = {"type": "object"}

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/", "The dashboard.", text=("text/html",), open=True),
    Operation("GET", "/dashboard/{file}", "A file of the dashboard.", text=("*/*",), open=True),
    Operation("GET", "/healthz", "200 while the supervisor runs.", text=("text/plain",), open=True),
    Operation("GET", "/readyz", "200 while clients are served, else 503.", text=("text/plain",), open=True),
    Operation(
        "GET",
        "/metrics",
        "Prometheus or OpenMetrics text, by Accept; without a token where admin.metrics_open is set.",
        text=("text/plain", "application/openmetrics-text"),
    ),
    _get("/v1/openapi.json", "This document.", {"type": "object", "required": ["openapi", "paths"]}),
    _get("/v1/status", "Version, workers, backends, regions and routes.", ref("Status")),
    _get("/v1/config", "The running configuration, secrets hidden.", ref("Config")),
    Operation(
        "POST",
        "/v1/reload",
        "Apply the configuration file as it is now; with `dry_run`, only tell what would change. If it has mistakes, "
        "nothing changes, and the answer is 422 with a line for each mistake in `problems`.",
        {200: ref("Reloaded")},
        body="ReloadBody",
    ),
    Operation(
        "POST",
        "/v1/upgrade",
        "Start the program that is installed now on the same sockets; answered when it is ready, and this one drains.",
        {200: obj({"pid": COUNT, "before": COUNT})},
        body="ChangeBody",
    ),
    _get(
        "/v1/config/history",
        "Configurations that were accepted, the newest first.",
        listed("revisions", ref("Revision")),
        query={**_NUMBERED, "limit": {"type": "integer", "minimum": 1, "maximum": 1000}},
    ),
    _get("/v1/config/history/{id}", "One accepted configuration, with its text.", ref("RevisionText")),
    _get(
        "/v1/config/diff",
        "Two accepted configurations as a unified diff; by default the newest and the one before.",
        obj({"from": COUNT, "to": COUNT, "lines": arr(STR)}),
        query={"from": _ID, "to": _ID},
    ),
    Operation(
        "POST",
        "/v1/config/rollback",
        "Apply an earlier configuration (by default the one before the newest), and write it into the file.",
        {200: ref("Reloaded")},
        body="RollbackBody",
    ),
    _get(
        "/v1/series",
        "The last minutes as rows: 10 minutes by second, 2 hours by ten seconds.",
        ref("Series"),
        query={"step": {"type": "integer", "enum": [1, 10]}, "after": {"type": "number", "minimum": 0}},
    ),
    _get(
        "/v1/events",
        "Server-sent events: those kept after Last-Event-ID or `after`, then new ones. follow=0: a page of JSON.",
        listed("events", ref("Event")),
        query={**_NUMBERED, "follow": {"type": "string", "enum": ["0", "1"]}, "kind": STR},
        text=("text/event-stream",),
    ),
    _get("/v1/events/{id}", "One event.", ref("Event")),
    _get("/v1/audit", "Who changed what, the newest first.", listed("audit", ref("Audit")), query=_NUMBERED),
    _get("/v1/audit/{id}", "One line of the audit.", ref("Audit")),
    _get("/v1/cache", "Hit rates, offload and bandwidth by window and route; the stores.", ref("Cache")),
    _get(
        "/v1/cache/top",
        "The most requested URLs, from a sample of the access log.",
        ref("Hottest"),
        query={"limit": {"type": "integer", "minimum": 1, "maximum": 100}},
    ),
    Operation(
        "POST",
        "/v1/purge",
        "Purge one thing, or many as `items`. Answered when the purge is durable and in force everywhere.",
        {200: {"anyOf": [ref("Purged"), obj({"purges": arr(ref("Purged"))})]}},
        body="PurgeBody",
    ),
    Operation(
        "POST",
        "/v1/warm",
        "Fetch URLs into the cache; answers with a JSON line for each step.",
        text=(LINES,),
        body="WarmBody",
    ),
    _get(
        "/v1/explain",
        "How a request would be handled, without sending it.",
        ref("Explained"),
        query={"url": STR, "client": STR, "method": STR, "header": arr(STR)},
        required=("url",),
    ),
    _get(
        "/v1/connections",
        "Open connections and the requests at backends.",
        ref("Connections"),
        query={"limit": _PAGED["limit"]},
    ),
    _get("/v1/fleet", "The machines of the fleet, and whether this one is in step; 404 without a fleet.", ref("Fleet")),
    _get("/v1/certificates", "The listeners' certificates, and hosts of routes that none covers.", ref("Certificates")),
    _get("/v1/regions", "All regions.", listed("regions", ref("Region")), query=_PAGED),
    _get(_REGION, "One region.", ref("Region")),
    Operation(
        "PUT",
        _REGION,
        "Register a region, or change what was registered.",
        {200: ref("Region"), 201: ref("Region")},
        body="RegionBody",
    ),
    Operation("DELETE", _REGION, "Remove a registered region.", {200: _REMOVED}, query=_SAID),
    Operation("POST", f"{_REGION}/state", "Activate, drain, deactivate.", {200: ref("Region")}, body="StateBody"),
    Operation(
        "POST",
        f"{_REGION}/failback",
        "Let pools that switched away from this region return to it.",
        {200: obj({"pools": arr(STR)})},
        body="ChangeBody",
    ),
    _get("/v1/pools", "All pools with their backends.", listed("pools", ref("Pool")), query=_PAGED),
    _get(_POOL, "One pool.", ref("Pool")),
    _get(f"{_POOL}/backends", "A pool's backends.", listed("backends", ref("Backend")), query=_PAGED),
    Operation(
        "PUT",
        f"{_POOL}/backends",
        "Register a backend, named by host and port.",
        {200: ref("Backend"), 201: ref("Backend")},
        body="BackendBody",
    ),
    _get(_BACKEND, "One backend.", ref("Backend")),
    Operation(
        "PUT",
        _BACKEND,
        "Register a backend, or change what was registered.",
        {200: ref("Backend"), 201: ref("Backend")},
        body="BackendBody",
    ),
    Operation("DELETE", _BACKEND, "Remove a registered backend.", {200: _REMOVED}, query=_SAID),
    Operation("POST", f"{_BACKEND}/state", "Activate, drain, deactivate.", {200: ref("Backend")}, body="StateBody"),
    Operation(
        "POST",
        "/v1/simulate",
        "Shares of traffic before and after a supposed loss; changes nothing.",
        {200: ref("Simulated")},
        body="SimulateBody",
    ),
    Operation(
        "POST",
        "/v1/certificates/renew",
        "Renew the ACME certificates of these names (or all) now; answered when all workers use them.",
        {200: obj({"renewed": arr(obj({"name": STR, "directory": STR}))})},
        body="RenewBody",
    ),
    _get("/v1/recovery", "RPO and RTO: targets, what is achieved, and alerts.", table(ANY)),
    _get("/v1/snapshots", "Recovery points, the newest first.", listed("points", ref("Point")), query=_PAGED),
    Operation("POST", "/v1/snapshots", "Take a point.", {200: _DONE}, body="SnapshotBody", text=(LINES,)),
    _get(_POINT, "One point.", ref("Point")),
    *(
        Operation("POST", f"{_POINT}/{what}", summary, {200: _DONE}, body=body, text=(LINES,))
        for what, summary, body in (
            ("verify", "Verify a point.", "VerifyBody"),
            ("drill", "Prove that a point can be restored.", "ChangeBody"),
            ("hold", "Keep a point whatever the rules say.", "ChangeBody"),
            ("release", "End a hold: the rules of `keep` decide again.", "ChangeBody"),
        )
    ),
)


@cache
def document() -> dict[str, Any]:
    """The whole document, as plain values."""
    paths: dict[str, dict[str, Any]] = {}
    problem = {"description": "It was not done.", "content": _json(ref("Problem"), problem=True)}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _shown(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "StreamGate Edge admin API",
            "version": __version__,
            "description": (
                "Bearer token; JSON; times as RFC 3339; errors as problem documents (RFC 9457). A list that is longer "
                "than its `limit` has a `next`, which is the `after` of its next page."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Fleet": FLEET, "Certificates": CERTIFICATES},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": problem},
        },
        "security": [{"token": []}],
    }


def _shown(operation: Operation) -> dict[str, Any]:
    """One endpoint as the document has it."""
    role = operation.role
    found: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "parameters": [*_path(operation), *_query(operation)],
        "responses": _responses(operation),
        "x-edge-role": None if role is None else role.value,
    }
    if operation.open:
        found["security"] = []
    if operation.body:
        content = _json(ref(operation.body))
        found["requestBody"] = {"required": operation.body in NEEDED, "content": content}
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, schema in operation.answers.items():
        found[str(status)] = {"description": "Done.", "content": _json(schema)}
    if operation.text:
        first = found.setdefault("200", {"description": "Done.", "content": {}})
        first["content"].update({each: {"schema": STR} for each in operation.text})
    if operation.path == "/readyz":
        found["503"] = {"description": "Not ready.", "content": {"text/plain": {"schema": STR}}}
    problem = {"$ref": "#/components/responses/Problem"}
    return {**found, "4XX": problem, **({} if "503" in found else {"5XX": problem})}


def _path(operation: Operation) -> list[dict[str, Any]]:
    numbered = operation.path.startswith(("/v1/events", "/v1/audit"))
    return [
        {"name": name, "in": "path", "required": True, "schema": _ID if numbered else {**STR, "minLength": 1}}
        for name in _IN_PATH.findall(operation.path)
    ]


def _query(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in operation.required, "schema": schema}
        for name, schema in operation.query.items()
    ]


def _json(schema: Schema, problem: bool = False) -> dict[str, Any]:
    return {"application/problem+json" if problem else "application/json": {"schema": schema}}


def _name(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", operation.path.removeprefix("/v1")) or ["dashboard"]
    return "_".join([operation.method.lower(), *words])
