"""What is done with a file of very many routes: its text is read once, tables that say the same are one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from edge.adapters.config_files import sources_of
from edge.app import build
from edge.config.loader import Config, load, load_text
from edge.control.packing import pack, unpack
from edge.control.reloading import read
from edge.control.supervisor import RunningConfig

HEAD = """\
[listen]
http = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
token_file = "@DIR@/token"
[state]
path = "@DIR@/state"
[cache]
max_object = "7MiB"
[limits]
max_body = "3MiB"
[pools.a]
max_in_flight = 7
timeouts = { head = "3s", idle = "9s" }
retry = { attempts = 5, min = 1 }
[[pools.a.backends]]
url = "http://127.0.0.1:1"
[[pools.a.backends]]
url = "http://127.0.0.1:2"
max_in_flight = 9
[pools.b]
[[pools.b.backends]]
url = "http://127.0.0.1:3"
"""
KINDS = (
    'pool = "a"\n',
    'pool = "a"\ncache = { default_ttl = "60s" }\n',
    'pool = "a"\ncache = { default_ttl = "60s", max_object = "1MiB" }\n',
    'pool = "a"\ntimeouts = { head = "4s" }\nretry = { attempts = 1 }\nmax_body = "1MiB"\n',
    'pool = "b"\ncache = { default_ttl = "60s" }\n',
    'pool = "b"\ncache = false\n',
    'redirect = { to = "https://example.com/", status = 308 }\n',
    'split = [{ pool = "b" }, { pool = "a", weight = 2 }]\n',
)


def many(folder: Path | str, routes: int) -> str:
    """A route of each kind, again and again."""
    found = "".join(f'[[routes]]\npath = "/r{number}"\n{KINDS[number % len(KINDS)]}' for number in range(routes))
    return HEAD.replace("@DIR@", str(folder)) + found


def test_a_reload_reads_and_checks_a_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(many(tmp_path, 20))
    sources = sources_of(file)
    running = RunningConfig(load(sources), sources, 0.0)
    calls = {"read": 0, "checked": 0}
    parse, check = tomllib.loads, Config.model_validate

    def parsing(text: str, **given: Any) -> dict[str, Any]:
        calls["read"] += 1
        return parse(text, **given)

    def checking(raw: object, **given: Any) -> Config:
        calls["checked"] += 1
        return check(raw, **given)

    monkeypatch.setattr(tomllib, "loads", parsing)
    monkeypatch.setattr(Config, "model_validate", checking)
    file.write_text(many(tmp_path, 24))
    wanted = read(running, None)
    assert calls == {"read": 1, "checked": 1}
    assert [each.key for each in wanted.changes] == [f"routes[*/r{number}]" for number in range(20, 24)]


def test_what_is_left_out_is_the_pool_s_or_the_whole_file_s() -> None:
    config = load_text(many("/tmp", len(KINDS)), "f.toml")
    plain, cached, small, own, other, off, redirect, split = config.routes
    assert [each.max_in_flight for each in config.pools["a"].backends] == [7, 9]
    assert (plain.timeouts.head, plain.timeouts.connect, plain.retry.attempts) == (3.0, 1.0, 5)
    assert (own.timeouts.head, own.retry.attempts, own.max_body) == (4.0, 1, 1024**2)
    assert (other.timeouts.head, other.retry.attempts, other.max_body) == (15.0, 2, 3 * 1024**2)
    assert [each.cache and each.cache.max_object for each in (plain, cached, small)] == [7 * 1024**2] * 2 + [1024**2]
    assert (off.cache, redirect.cache, redirect.pool, split.pool) == (None, None, None, "a")
    assert split.timeouts.head == 3.0


def test_tables_that_say_the_same_are_one_also_in_a_worker() -> None:
    sent = load_text(many("/tmp", 4 * len(KINDS)), "f.toml")
    there = unpack(pack(sent))
    assert there == sent
    for config in (sent, there):
        for kind in range(len(KINDS)):
            alike = config.routes[kind :: len(KINDS)]
            assert len({id(route.cache) for route in alike}) == 1
            assert len({id(route.timeouts) for route in alike if route.pool}) <= 1
        plain, cached, small, own, other, *_ = config.routes
        assert cached.cache is other.cache  # what a pool has nothing to do with
        assert len({id(each.cache) for each in (plain, cached, small)}) == 3
        assert len({id(each.timeouts) for each in (plain, own, other)}) == 3
    worker = build(there, disk=False)
    rules = [route.rules for route in worker.router.routes]
    assert rules[1] is rules[4] is rules[1 + len(KINDS)]
    assert rules[0] is not rules[1] and rules[5] is None
