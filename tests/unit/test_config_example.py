"""The example file and the list of keys: neither may miss a key of the schema, and the example shows real defaults."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.config.loader import Limits, describe, load_text

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
PLAIN = """\
listen.http = ["127.0.0.1:8080"]
pools.web.backends = [{ url = "http://127.0.0.1:9000" }]
routes = [{ pool = "web" }]
"""


def test_the_example_loads_as_it_is_and_shows_the_defaults() -> None:
    config = load_text(EXAMPLE.read_text(), "config.example.toml")
    assert config.limits == Limits()
    plain = load_text(PLAIN, "f")
    assert (config.admin, config.state, config.cache, config.geoip, config.log) == (
        *(plain.admin, plain.state, plain.cache, plain.geoip, plain.log),
    )
    pool, bare = config.pools["web"], plain.pools["web"]
    own = {"backends", "balance", "health"}
    assert pool.model_dump(exclude=own) == bare.model_dump(exclude=own)


def test_the_example_holds_every_key_once_and_all_of_it_loads() -> None:
    text = re.sub(r"(?m)^#(?=[^ #\n])", "", EXAMPLE.read_text())
    config = load_text(text, "config.example.toml")
    assert config.snapshots is not None
    shown = Counter(_keys(tomllib.loads(text)))
    wanted = {key.key for key in describe()}
    assert wanted - set(shown) == set()
    repeated = {
        key
        for key, count in shown.items()
        if count > 1
        and not re.match(
            r"regions|pools\.<name>\.?(backends.*)?$|routes\[\]\.(path|pool|auth|split.*|respond(\.status)?)$", key
        )
    }
    assert repeated == set()


def _keys(raw: Any, path: str = "") -> Iterator[str]:
    """Paths of a raw file in the form of `describe`."""
    for name, value in raw.items():
        named = path in ("regions.", "pools.")
        here = f"{path}<name>" if named else f"{path}{name}"
        if not named:
            yield here
        if isinstance(value, dict) and not here.endswith("status_ttl"):
            yield from _keys(value, f"{here}.")
        for element in value if isinstance(value, list) else ():
            if isinstance(element, dict):
                yield from _keys(element, f"{here}[].")


def test_every_key_has_type_default_and_help() -> None:
    keys = describe()
    assert len({key.key for key in keys}) == len(keys) > 150
    for key in keys:
        assert key.type
        assert len(key.help) > 5, key
    by_name = {key.key: key for key in keys}
    assert by_name["limits.max_body"][1:3] == ("size above 0", '"100MiB"')
    assert by_name["pools.<name>.backends"].default == "required"
    assert by_name["listen.workers"][1:3] == ('"auto" or whole number', "1")
    assert by_name["routes[].cache.set_cookie"].type == 'one of "refuse", "store", "strip"'
