"""The shapes of what the admin API says, as JSON Schema: one table of names, for the OpenAPI document.

One rule: an object has the keys that are named here and no others (`additionalProperties: false`), so that a value
that is added to an answer and not told here fails the tests. Tables by name (routes, pools, words) tell their values.
"""

from __future__ import annotations

from typing import Any

from edge.control.series import COLUMNS

Schema = dict[str, Any]

STR: Schema = {"type": "string"}
INT: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUM: Schema = {"type": "number"}
BOOL: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
ANY: Schema = {}
RATIO: Schema = {"type": "number", "maximum": 1}


def obj(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these keys and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def arr(items: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items}


def table(values: Schema) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "additionalProperties": values}


def maybe(schema: Schema) -> Schema:
    """The schema of what may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Schema:
    """A reference to a schema of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*words: str) -> Schema:
    """The schema of a text that is one of these words."""
    return {"type": "string", "enum": list(words)}


def listed(name: str, items: Schema) -> Schema:
    """A page of a list: `next` is the `after` of the page that follows, null on the last one."""
    return obj({name: arr(items), "next": maybe({"type": ["string", "integer"]})})


ADMIN = one_of("active", "draining", "inactive")
HEALTH = one_of("healthy", "unhealthy", "unknown")
VERDICT = one_of("healthy", "degraded", "unhealthy", "unknown")
SOURCE = one_of("file", "runtime")
_QUANTILES = {f"{total}{name}_ms": maybe(NUM) for name in ("p50", "p90", "p99") for total in ("", "total_")}
NUMBERS = {
    **dict.fromkeys(("requests", "attempts", "retries"), COUNT),
    **dict.fromkeys(("bytes_in", "bytes_out", "origin_in", "origin_out", "cache_out"), COUNT),
    "status": table(COUNT),
    "errors": table(COUNT),
    **_QUANTILES,
}
WORTH = {"hit_rate": maybe(RATIO), "byte_hit_rate": maybe(RATIO), "offload": maybe(RATIO), "saved_bytes": INT}
_TALLY = dict.fromkeys(
    (
        *("requests", "eligible", "hits", "collapsed", "client_in", "client_out", "cache_out"),
        *("origin_in", "origin_out", "origin_requests", "origin_own"),
    ),
    COUNT,
)
_WINDOW = obj({**_TALLY, **WORTH, "client_out_per_s": NUM, "origin_in_per_s": NUM})
_WINDOWS = {
    **dict.fromkeys(("1m", "5m", "1h"), _WINDOW),
    "lifetime": obj({**_TALLY, **WORTH}),
    "p95_client_out_per_s": maybe(NUM),
    "p95_origin_in_per_s": maybe(NUM),
}
_PLACES = dict.fromkeys(("countries", "continents", "subdivisions"), arr(STR))
_REGION = {
    "name": STR,
    "source": SOURCE,
    "tier": INT,
    "weight": NUM,
    "location": maybe(arr(NUM)),
    **_PLACES,
    "last_resort": BOOL,
    "admin": ADMIN,
    "change": maybe(ref("Change")),
    "registered": maybe(ref("Change")),
    "health": VERDICT,
    "shares": table(NUM),
    "ramping": table(NUM),
    "backends": arr(STR),
    "numbers": ref("Numbers"),
}
_BACKEND = {
    "id": STR,
    "pool": STR,
    "url": STR,
    "region": STR,
    "weight": NUM,
    "max_in_flight": maybe(COUNT),
    "source": SOURCE,
    "admin": ADMIN,
    "change": maybe(ref("Change")),
    "registered": maybe(ref("Change")),
    "health": HEALTH,
    "evidence": maybe(STR),
    "since": maybe(TIME),
    "ejected": COUNT,
    "probe_ms": maybe(NUM),
    "in_flight": COUNT,
    **NUMBERS,
}
_POOL = {
    "name": STR,
    "balance": STR,
    "failover": STR,
    "phase": STR,
    "serving": maybe(STR),
    "frozen": BOOL,
    "view": obj({"shares": table(NUM), **dict.fromkeys(("order", "healthy", "panic", "last_resort"), arr(STR))}),
    "regions": table(
        obj({"health": VERDICT, "available": NUM, "total": NUM, "latency_ms": maybe(NUM), "ramping": maybe(NUM)})
    ),
    "backends": arr(ref("Backend")),
    "numbers": ref("Numbers"),
}
_NEEDS = obj({}, {"upgrade": arr(STR), "restart": arr(STR)})  # keys of the file that are not in force
_EXPLAIN = obj(
    {"url": STR, "method": STR, "client": maybe(STR), "route": maybe(ANY)},
    {
        "needs": _NEEDS,
        "verdict": STR,
        "status": INT,
        "reason": STR,
        "rules": arr(obj({"rule": STR, "does": STR})),
        "cache": {"type": "object"},
        "place": {"type": "object"},
        "regions": arr({"type": "object"}),
        "backends": arr({"type": "object"}),
        "hash": {"type": "object"},
        "listeners": arr(obj({"listener": STR, "protocols": STR})),
    },
)
_MOVED = obj({"name": STR, "before": NUM, "after": NUM})
_SIMULATED = obj(
    {
        "pools": arr(
            obj(
                {
                    "name": STR,
                    "regions": arr(_MOVED),
                    "backends": arr(_MOVED),
                    "unserved": obj({"before": NUM, "after": NUM}),
                    "settled_after_s": maybe(NUM),
                }
            )
        ),
        "refused": arr(STR),
    }
)
_ALSO = dict.fromkeys(("reason", "actor", "expires"), maybe(STR)) | {"force": maybe(BOOL)}

_LAST_RELOAD = obj(
    {
        "at": maybe(TIME),
        "ok": BOOL,
        "actor": STR,
        "problems": arr(STR),
        "not_applied": arr(STR),
        "needs": _NEEDS,
        "accepted": COUNT,
        "refused": COUNT,
    }
)
_REVISION = {"id": COUNT, "at": TIME, "hash": STR}
_RELOADED = obj(
    {
        "applied": BOOL,
        "changes": arr(obj({"key": STR, "was": ANY, "is": ANY})),
        "not_applied": arr(STR),
        "needs": _NEEDS,
        "warnings": arr(STR),
    },
    {
        "revision": maybe(COUNT),
        "took_ms": NUM,
        "forecast": obj(
            {
                "pools": arr(obj({"name": STR, "regions": arr(obj({"name": STR, "before": NUM, "after": NUM}))})),
                "refused": arr(STR),
            }
        ),
        "restored": COUNT,
        "file": {"type": "object", "required": ["written"]},
    },
)

_STATUS = obj(
    {
        **dict.fromkeys(("version", "readiness", "state"), STR),
        "pid": COUNT,
        "ready": BOOL,
        "started_at": TIME,
        "uptime_s": NUM,
        "config": {"type": "object", "required": ["file", "hash", "loaded_at"]},
        "listen": arr(STR),
        "workers": arr(
            {
                "type": "object",
                "properties": {"index": COUNT, "pid": maybe(COUNT), "state": STR, "restarts": COUNT},
                "required": ["index", "pid", "state", "restarts", "connections"],
            }
        ),
        "requests": obj(
            {
                "requests_per_s": NUM,
                "connections": COUNT,
                "protocols": arr(obj({"protocol": STR, "tls": STR, "requests": COUNT})),
                "routes": table(obj({**NUMBERS, "cache_5m": obj(WORTH)})),
                "pools": table(ref("Numbers")),
                "regions": table(ref("Numbers")),
            }
        ),
        "regions": arr(
            obj(
                {
                    **dict.fromkeys(("pool", "name"), STR),
                    "tier": INT,
                    "admin": ADMIN,
                    "health": VERDICT,
                    "share": NUM,
                    "ramping": maybe(NUM),
                }
            )
        ),
        "backends": arr(ref("Backend")),
        "counters": table(COUNT),
        "reload": maybe(_LAST_RELOAD),
        "fleet": BOOL,
        "recovery": maybe({"type": "object"}),
        "events": arr(ref("Event")),
    }
)

# -- bodies ----------------------------------------------------------------------------------------------------------

_CHANGE_BODY = obj({}, _ALSO)
_ITEM = {
    "anyOf": [
        obj({name: {"type": "string", "minLength": 1, "maxLength": 8192}}, {"soft": BOOL})
        for name in ("url", "tag", "prefix", "host")
    ]
    + [obj({"all": {"const": True}}, {"soft": BOOL})]
}
_PURGE_BODY = {
    "anyOf": [
        *({**each, "properties": {**each["properties"], **_ALSO}} for each in _ITEM["anyOf"]),
        obj({"items": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": 1000}}, {"soft": BOOL, **_ALSO}),
    ]
}
_REGION_BODY = obj(
    {},
    {
        "tier": {"type": "integer", "minimum": 0, "maximum": 1000},
        "weight": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "location": maybe({"type": "array", "items": NUM, "minItems": 2, "maxItems": 2}),
        **_PLACES,
        "last_resort": BOOL,
        **_ALSO,
    },
)
_BACKEND_BODY = obj({"url": STR, "region": STR}, {"weight": COUNT, "max_in_flight": COUNT, **_ALSO})

SCHEMAS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457; `detail` is one clear line.",
        "properties": {"type": STR, "title": STR, "status": INT, "detail": STR, "problems": arr(STR)},
        "required": ["type", "title", "status", "detail"],
    },
    "Change": obj({"actor": STR, "reason": STR, "at": maybe(TIME), "expires_at": maybe(TIME)}),
    "Numbers": obj(NUMBERS),
    "Region": obj(_REGION),
    "Backend": obj(_BACKEND),
    "Pool": obj(_POOL),
    "Event": {
        "type": "object",
        "description": "What happened; further keys by its kind. `lost`: how many before it were not kept.",
        "properties": {"id": INT, "time": TIME, "kind": STR},
        "required": ["id", "time", "kind"],
    },
    "Audit": obj({"id": INT, "at": TIME, "actor": STR, "action": STR, "target": STR, "detail": ANY}),
    "Status": _STATUS,
    "Config": obj({"file": STR, "hash": STR, "loaded_at": maybe(TIME), "config": {"type": "object"}}),
    "Connections": obj(
        {
            "clients": arr({"type": "object", "required": ["client", "state"]}),
            "requests": arr({"type": "object", "required": ["id", "pool", "backend", "state", "age_s"]}),
            "more": COUNT,
            "backends": arr(
                obj(
                    {
                        **dict.fromkeys(("pool", "backend", "region"), STR),
                        **dict.fromkeys(("in_flight", "open", "idle"), COUNT),
                    }
                )
            ),
        }
    ),
    "Explained": _EXPLAIN,
    "Simulated": _SIMULATED,
    "Purged": obj(
        {"id": maybe(INT), "kind": STR, "value": maybe(STR), "soft": BOOL, "count": maybe(COUNT), "workers": COUNT},
        {"machines": obj({"applied": COUNT, "of": COUNT, "late": arr(STR), "sent": BOOL, "sure": BOOL})},
    ),
    "Cache": obj(
        {
            "total": obj(_WINDOWS),
            "routes": table(obj({**_WINDOWS, "verdicts": table(COUNT), "reasons": table(COUNT)})),
            "store": table(NUM),
            "epoch": COUNT,
        },
        {"disk": table(maybe(NUM))},
    ),
    "Hottest": obj(
        {
            "objects": arr(
                obj(
                    {
                        "url": STR,
                        "route": STR,
                        "requests_per_s": NUM,
                        "share": RATIO,
                        "hit_rate": maybe(RATIO),
                        "error_rate": RATIO,
                        "bytes_per_s": NUM,
                    }
                )
            ),
            "sampled": COUNT,
            "window_s": NUM,
        }
    ),
    "Series": obj(
        {
            "step_s": {"type": "integer", "enum": [1, 10]},
            "columns": {"type": "array", "items": one_of(*COLUMNS)},
            "rows": arr(arr(maybe(NUM))),
            "regions": table(arr(NUM)),
        }
    ),
    "Point": {
        "type": "object",
        "properties": {"id": STR, "kind": STR, "parent": maybe(STR), "needs": arr(STR), "taken_at": TIME},
        "required": ["id", "kind", "parent", "needs", "taken_at", "status", "bytes"],
    },
    "Reloaded": _RELOADED,
    "Revision": obj({**_REVISION, "running": BOOL}),
    "RevisionText": obj({**_REVISION, "text": STR, "files": table(STR)}),
    "ReloadBody": obj({}, {"dry_run": BOOL, **_ALSO}),
    "RollbackBody": obj({}, {"revision": maybe(COUNT), "dry_run": BOOL, **_ALSO}),
    "ChangeBody": _CHANGE_BODY,
    "StateBody": obj({"state": ADMIN}, _ALSO),
    "PurgeBody": _PURGE_BODY,
    "RegionBody": _REGION_BODY,
    "BackendBody": _BACKEND_BODY,
    "WarmBody": {
        "anyOf": [obj({"urls": {"type": "array", "items": STR, "minItems": 1}}), {"type": "array", "items": STR}]
    },
    "SimulateBody": obj(
        {},
        {"lose": arr(STR), "down": arr(STR), "slow": table(NUM), "capacity": table(NUM)},
    ),
    "SnapshotBody": obj({}, {"kind": one_of("full", "differential", "incremental"), **_ALSO}),
    "RenewBody": obj({}, {"names": arr(STR), **_ALSO}),
    "VerifyBody": obj({}, {"read_data": BOOL, **_ALSO}),
}
