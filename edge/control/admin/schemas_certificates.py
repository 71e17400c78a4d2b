"""The shape of what `/v1/certificates` says, as `schemas` has the others."""

from __future__ import annotations

from edge.control.admin.schemas import BOOL, NUM, STR, TIME, arr, maybe, obj

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
                }
            )
        ),
        "uncovered": arr(obj({"route": STR, "host": STR})),
    }
)
