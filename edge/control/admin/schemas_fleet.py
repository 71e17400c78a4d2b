"""The shape of what `/v1/fleet` says, as `schemas` has the others."""

from __future__ import annotations

from edge.control.admin.schemas import BOOL, COUNT, INT, NUM, STR, arr, maybe, obj, one_of, table

FLEET = obj(
    {
        **dict.fromkeys(("name", "id", "trouble", "history", "run"), STR),
        **dict.fromkeys(("in_step", "blind", "catching_up", "sure"), BOOL),
        **dict.fromkeys(("position", "lag"), COUNT),
        **dict.fromkeys(("clock_offset_s", "max_blind_s"), NUM),
        "states": maybe(obj(dict.fromkeys(("number", "owed"), COUNT))),
        "disputes": maybe(
            arr(obj({**dict.fromkeys(("pool", "backend", "believed"), STR), **dict.fromkeys(("up", "down"), COUNT)}))
        ),
        "machines": arr(
            obj(
                {
                    **dict.fromkeys(("id", "name", "version", "region"), STR),
                    "state": one_of("in step", "joining", "silent"),
                    "self": BOOL,
                    "position": INT,
                    "lag": maybe(COUNT),
                    "states": maybe(INT),
                    **dict.fromkeys(("heard_s", "clock_offset_s", "max_blind_s"), NUM),
                    **dict.fromkeys(("workers", "requests_per_second", "in_flight"), NUM),
                }
            )
        ),
        "shared": maybe(table(NUM)),
    }
)
