"""The shape of what `/v1/certificates` says, as `schemas` has the others."""

from __future__ import annotations

from edge.control.admin.schemas import BOOL, COUNT, NUM, STR, TIME, arr, maybe, obj

_ACME = obj(
    {
        "directory": STR,
        "self_signed": BOOL,
        "next_at": maybe(TIME),
        "failures": COUNT,
        "failed_at": maybe(TIME),
        "error": maybe(STR),
    }
)
CERTIFICATES = obj(
    {
        "certificates": arr(
            obj(
                {
                    **dict.fromkeys(("listener", "certificate", "key", "issuer", "problem"), STR),
                    "names": arr(STR),
                    "expires_at": maybe(TIME),
                    "days_left": maybe(NUM),
                    "key_fits": BOOL,
                    "acme": maybe(_ACME),
                }
            )
        ),
        "uncovered": arr(obj({"route": STR, "host": STR})),
    }
)
