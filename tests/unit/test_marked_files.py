"""Texts that an editor put a byte order mark (U+FEFF) before: it is no part of them, wherever they are read."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from edge.adapters.config_files import sources_of
from edge.cli.client import connect
from edge.cli.runbook import books
from edge.config.loader import load
from edge.control.journal import Revision
from edge.control.written_back import write_back
from edge.errors import ConfigError

MARK = "\ufeff"
TEXT = """\
include = ["more.toml"]
[listen]
http = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:9955"
token_file = "token"
[pools.a]
[[pools.a.backends]]
url = "http://127.0.0.1:1"
[[routes]]
pool = "a"
"""
MORE = '[[routes]]\npath = "/more"\npool = "a"\n'


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A configuration of two files, both with a mark."""
    (tmp_path / "edge.toml").write_text(MARK + TEXT, encoding="utf-8")
    (tmp_path / "more.toml").write_text(MARK + MORE, encoding="utf-8")
    (tmp_path / "token").write_text("t" * 40)
    return tmp_path / "edge.toml"


def test_a_configuration_with_the_files_that_it_includes(marked: Path) -> None:
    sources = sources_of(marked)
    assert [route.path for route in load(sources).routes] == ["/", "/more"]
    assert MARK not in sources.texts


def test_places_are_counted_without_it(marked: Path) -> None:
    marked.write_text(MARK + "lisen = 5\n" + TEXT, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(sources_of(marked))
    assert caught.value.problems[0].startswith(f"{marked}:1:1 lisen: unknown key")


def test_a_command_finds_the_gateway_by_it(marked: Path) -> None:
    assert connect(marked, None, None).target.port == 9955


def test_a_file_that_says_what_was_accepted_is_left_alone(marked: Path) -> None:
    done = write_back(Revision(1, 0.0, "", TEXT, {"more.toml": MORE}), marked)
    assert done == {"written": False, "kept": None}
    assert marked.read_text(encoding="utf-8").startswith(MARK)


def test_a_runbook(tmp_path: Path) -> None:
    shipped = files("edge").joinpath("runbooks/bad-config.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(MARK + shipped.replace('"bad-config"', '"mine"', 1), encoding="utf-8")
    assert "mine" in books(tmp_path)
