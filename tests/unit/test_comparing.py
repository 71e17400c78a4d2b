"""Two configurations beside each other: each key that differs, by its name, in the order of the file."""

from __future__ import annotations

import pytest

from edge.config.loader import Config, load_text
from edge.control.comparing import differences, pinned

TEXT = """\
[listen]
http = ["127.0.0.1:8080"]
[cache]
memory = "64MiB"
[fleet]
url = "redis+sentinel://one/main"
sentinel_password = "first"
[pools.web]
timeouts = { head = "10s" }
[[pools.web.backends]]
id = "a"
url = "http://127.0.0.1:9000"
[[pools.web.backends]]
id = "b"
url = "http://127.0.0.1:9001"
[[routes]]
name = "api"
path = "/api"
pool = "web"
response_headers = { set = { "X-Of.Api" = "1" } }
cache = { default_ttl = "60s", status_ttl = { "404" = "5s" } }
[[routes]]
name = "all"
pool = "web"
"""


def config(*changes: tuple[str, str]) -> Config:
    text = TEXT
    for was, now in changes:
        assert was in text
        text = text.replace(was, now)
    return load_text(text, "f.toml")


def found(*changes: tuple[str, str]) -> dict[str, tuple[object, object]]:
    return {each.key: (each.was, each.now) for each in differences(config(), config(*changes))}


def test_what_is_the_same_does_not_differ() -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ('default_ttl = "60s"', 'default_ttl = "61s"', {"routes[api].cache.default_ttl": (60.0, 61.0)}),
        ('"404" = "5s"', '"404" = "6s"', {"routes[api].cache.status_ttl.404": (5.0, 6.0)}),
        ('{ "404" = "5s" }', '{ "410" = "5s" }', {"status_ttl.410": (None, 5.0), "status_ttl.404": (5.0, None)}),
        ('"X-Of.Api" = "1"', '"X-Of.Api" = "2"', {"routes[api].response_headers.set.X-Of.Api": ("1", "2")}),
        ('"http://127.0.0.1:9001"', '"http://127.0.0.1:9002"', {"pools.web.backends[b].url": None}),
        ('["127.0.0.1:8080"]', '["127.0.0.1:8081"]', {"listen.http": (["127.0.0.1:8080"], ["127.0.0.1:8081"])}),
        (
            'cache = { default_ttl = "60s", status_ttl = { "404" = "5s" } }',
            "cache = false",
            {"routes[api].cache": None},
        ),
    ],
)
def test_a_key_is_named(was: str, now: str, told: dict[str, tuple[object, object] | None]) -> None:
    changed = found((was, now))
    assert len(changed) == len(told)
    for (key, values), (wanted, expected) in zip(changed.items(), told.items(), strict=True):
        assert key.endswith(wanted)
        assert expected is None or values == expected


def test_a_route_more_or_less_is_one_difference() -> None:
    more = 'name = "all"\npool = "web"\n[[routes]]\nname = "new"\nhost = "new.example"\npool = "web"\n'
    changed = found(('name = "all"\npool = "web"\n', more))
    assert list(changed) == ["routes[new]"]
    was, now = changed["routes[new]"]
    assert was is None and isinstance(now, dict) and now["host"] == "new.example"


def test_a_route_that_changes_its_place_is_still_itself() -> None:
    first, second = TEXT.partition("[[routes]]\n")[2].split("[[routes]]\n")
    turned = (f"[[routes]]\n{first}[[routes]]\n{second}", f"[[routes]]\n{second}[[routes]]\n{first}")
    assert found(turned) == {}


def test_a_secret_that_changes_is_named_and_not_shown() -> None:
    assert found(('"first"', '"second"')) == {"fleet.sentinel_password": ("***", "***")}
    _, kept = pinned(config(('"first"', '"second"')), config())
    assert kept == ["fleet.sentinel_password"]  # what a reload does not take on is told, secret or not


def test_a_new_route_is_told_by_what_its_file_says() -> None:
    added = '[[routes]]\nname = "new"\nhost = "a.example"\npool = "web"\ncache = false\n[[routes]]\nname = "all"'
    [(key, (was, now))] = found(('[[routes]]\nname = "all"', added)).items()
    assert (key, was) == ("routes[new]", None) and isinstance(now, dict)
    assert {"host": "a.example", "name": "new", "pool": "web", "cache": None}.items() <= now.items()  # what is off, too
    assert "rate_limit" not in now and "path_regex" not in now
