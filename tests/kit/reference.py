"""The reference pages in docs/, made from the program's own tables. `make docs` writes them; a test holds them.

One rule: nothing in a page that this makes is written by hand, so that no key and no endpoint can be told wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from edge.config.keys import Key
from edge.config.loader import describe
from edge.control.admin.openapi import OPERATIONS, Operation
from edge.control.comparing import taken_on_by

DOCS = Path(__file__).resolve().parents[2] / "docs"
WAYS = {"reload": "", "upgrade": "`edge upgrade`", "restart": "restart"}
MADE = "<!-- made by `make docs` from the program's own tables; do not edit -->"


def configuration() -> str:
    """Every key of the file, a table for each of its parts."""
    lines = [
        "# Every key of the configuration",
        "",
        MADE,
        "",
        "`<name>` stands for a name of your choice, `[]` for each element of a list. Durations are written",
        '`"250ms"`, `"5s"`, `"1m30s"`, `"1d"`; sizes `"64KiB"`, `"10GiB"`, `"1kB"` (1000); shares `"20%"`.',
        "An unknown key is an error that names the nearest one.",
        "[config.example.toml](../config.example.toml) shows each key once; `edge check --keys` prints this list.",
        "`edge reload` takes on every key but those with another word in the last column.",
    ]
    for part, found in groupby(describe(), lambda key: key.key.split(".")[0].removesuffix("[]")):
        lines += ["", f"## {part}", "", "| key | type | default | | |", "|---|---|---|---|---|"]
        lines += [_row(key) for key in found]
    return "\n".join(lines) + "\n"


def _row(key: Key) -> str:
    default = key.default if key.default in ("", "required") else f"`{key.default}`"
    way = WAYS[taken_on_by(key.key)]
    cells = (f"`{key.key}`", key.type, default, key.help, way)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def api() -> str:
    """Every endpoint of the admin API."""
    lines = [
        "# The admin API",
        "",
        MADE,
        "",
        "On the admin listener, with `Authorization: Bearer <token>`; what a token may do is its role",
        "(`read` < `purge` < `admin`). `GET /v1/openapi.json` has the same with all fields of requests and answers",
        "(OpenAPI 3.1). Errors are problem documents (RFC 9457), times RFC 3339 in UTC, long lists come in pages",
        "(`limit`, `after`); examples stand in [watch-and-steer.md](watch-and-steer.md).",
        "",
        "| | path | role | |",
        "|---|---|---|---|",
    ]
    lines += [_endpoint(operation) for operation in OPERATIONS]
    return "\n".join(lines) + "\n"


def _endpoint(operation: Operation) -> str:
    query = f" Query: {', '.join(f'`{name}`' for name in operation.query)}." if operation.query else ""
    body = f" Body: `{operation.body}`." if operation.body else ""
    role = "–" if operation.role is None else operation.role.value
    return f"| {operation.method} | `{operation.path}` | {role} | {operation.summary}{query}{body} |"


PAGES: dict[str, Callable[[], str]] = {"configuration.md": configuration, "api.md": api}


def outdated() -> Iterator[str]:
    """The pages that are not what the program says now."""
    for name, make in PAGES.items():
        page = DOCS / name
        if not page.exists() or page.read_text(encoding="utf-8") != make():
            yield name


if __name__ == "__main__":
    for each in list(outdated()):
        (DOCS / each).write_text(PAGES[each](), encoding="utf-8")
        print(f"docs/{each}")
