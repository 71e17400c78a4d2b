"""A configuration of several files, the environment in it, and where its paths lead."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.loader import Config, config_hash, load
from edge.config.paths import written
from edge.config.sources import Sources, put_together
from edge.config.writing import toml_of
from edge.errors import ConfigError

MAIN = """\
include = ["sites/*.toml"]
[listen]
http = ["127.0.0.1:0"]
[pools.a]
[[pools.a.backends]]
url = "http://127.0.0.1:1"
[[routes]]
name = "first"
pool = "a"
"""
SITE = """\
[pools.b]
[[pools.b.backends]]
url = "http://127.0.0.1:2"
[[routes]]
name = "second"
host = "b.example"
pool = "b"
"""


NAMED_TWICE = "/etc/edge/sites/b.toml:5:1 routes[0].name: is the name of routes[0] in /etc/edge/edge.toml too"
TWICE = "/etc/edge/sites/b.toml:9:1 listen.http: given twice, first at /etc/edge/edge.toml:3:1"


def loaded(main: str, files: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Config:
    return load(Sources("/etc/edge/edge.toml", main, files, environment or {}))


def problems(main: str, files: Mapping[str, str], environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(main, files, environment)
    return caught.value.problems


def test_tables_are_added_and_lists_of_tables_continued() -> None:
    more = (
        SITE.replace("second", "third")
        .replace("b.example", "c.example")
        .replace("pools.b", "pools.c")
        .replace('"b"', '"c"')
    )
    backends = '[[pools.a.backends]]\nurl = "http://127.0.0.1:3"\n[limits]\nmax_ranges = 7\n'
    config = loaded(MAIN, {"sites/b.toml": SITE, "sites/a.toml": more, "sites/z.toml": backends})
    assert [route.name for route in config.routes] == ["first", "third", "second"], "by name of file"
    assert [backend.address.port for backend in config.pools["a"].backends] == [1, 3]
    assert (set(config.pools), config.limits.max_ranges) == ({"a", "b", "c"}, 7)


@pytest.mark.parametrize(
    ("main", "site", "said"),
    [
        (MAIN, SITE.replace("pool =", "pol ="), "/etc/edge/sites/b.toml:7:1 routes[0].pol: unknown key"),
        (MAIN, SITE.replace('pool = "b"', 'pool = "x"'), "/etc/edge/sites/b.toml:7:1 routes[0].pool: "),
        (MAIN.replace('pool = "a"', 'pool = "x"'), SITE, "/etc/edge/edge.toml:9:1 routes[0].pool: "),
        (MAIN, SITE + "[listen]\nhttp = []\n", TWICE),
        (MAIN, "[pools.a]\nbackends = 1\n", "/etc/edge/sites/b.toml:2:1 pools.a.backends: given twice"),
        (MAIN, "include = []\n" + SITE, "/etc/edge/sites/b.toml:1:1 include: only the main file may include others"),
        (
            MAIN,
            SITE.replace('host = "b.example"\n', ""),
            "/etc/edge/sites/b.toml:4:3 routes[0]: host and path are those of routes[0] in /etc/edge/edge.toml",
        ),
        (MAIN, SITE + "[[", "/etc/edge/sites/b.toml:8:"),
        (MAIN, SITE.replace('"second"', '"first"'), NAMED_TWICE),
        (MAIN, SITE.replace("127.0.0.1:2", "127.0.0.1:1/x"), "/etc/edge/sites/b.toml:3:1 pools.b.backends[0].url: "),
        (MAIN.replace("include", "includes"), SITE, "/etc/edge/edge.toml:1:1 includes: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_its_file(main: str, site: str, said: str) -> None:
    found = problems(main, {"sites/b.toml": site})
    assert [line for line in found if line.startswith(said)], found


def test_mistakes_of_all_files_are_told_at_once_in_order() -> None:
    bad = SITE.replace("pool =", "pol =")
    found = problems(MAIN.replace("pool =", "pol ="), {"sites/b.toml": bad, "sites/a.toml": "[lisen]\n"})
    assert [line.split(" ")[0] for line in found] == [
        "/etc/edge/edge.toml:7:3",
        "/etc/edge/edge.toml:9:1",
        "/etc/edge/sites/a.toml:1:2",
        "/etc/edge/sites/b.toml:4:3",
        "/etc/edge/sites/b.toml:7:1",
    ]


def test_paths_are_below_the_folder_of_their_file() -> None:
    tls = '[[listen.https]]\naddress = "127.0.0.1:0"\ncertificates = [{ cert = "b.pem", key = "/k/b.key" }]\n'
    site = SITE + 'error_pages = { "404" = "pages/404.html" }\nauth = { jwt = { jwks = "keys.json" } }\n' + tls
    main = MAIN + '[state]\npath = "../var"\n[snapshots]\nrepository = "file:backups"\n'
    config = loaded(main, {"sites/b.toml": site})
    (pair,) = config.listen.https[0].certificates
    assert (pair.cert, pair.key) == ("/etc/edge/sites/b.pem", "/k/b.key")
    assert (written(pair.cert), written(pair.key)) == ("sites/b.pem", "/k/b.key")
    assert config.routes[1].error_pages == {"404": "/etc/edge/sites/pages/404.html"}
    auth = config.routes[1].auth
    assert auth is not None and auth.jwt is not None and auth.jwt.jwks == "/etc/edge/sites/keys.json"
    assert config.state.path == "/etc/edge/../var"
    assert config.snapshots is not None and config.snapshots.repository == "file:/etc/edge/backups"
    assert config.admin.token_file == "/etc/edge/var/admin.token", "defaults too"
    assert written(config.admin.token_file) == "var/admin.token"
    again = pickle.loads(pickle.dumps(config))
    assert again == config and written(again.listen.https[0].certificates[0].cert) == "sites/b.pem"


@pytest.mark.parametrize("filename", ["edge.toml", "./edge.toml"])
def test_a_file_that_is_here_leaves_paths_as_they_are(filename: str) -> None:
    config = load(Sources(filename, MAIN + '[log]\naccess = "a.log"\n'))
    assert config.log.access in ("a.log", "./a.log")


@pytest.mark.parametrize("word", ["stdout", "off"])
def test_words_are_no_paths(word: str) -> None:
    assert loaded(MAIN + f'[log]\naccess = "{word}"\n', {}).log.access == word


@pytest.mark.parametrize(
    ("text", "environment", "found"),
    [
        ("${HOST}", {"HOST": "a.example"}, "a.example"),
        ("${HOST:-b.example}", {}, "b.example"),
        ("${HOST:-b.example}", {"HOST": ""}, "b.example"),
        ("${HOST:-b.example}", {"HOST": "a.example"}, "a.example"),
        ("x.${A}${B:-}.example", {"A": "a"}, "x.a.example"),
    ],
)
def test_the_environment_is_filled_in(text: str, environment: dict[str, str], found: str) -> None:
    main = MAIN + f'host = "{text}"\n'
    assert loaded(main, {}, environment).routes[0].host == found
    assert loaded(MAIN, {"sites/b.toml": SITE.replace("b.example", text)}, environment).routes[1].host == found


def test_what_is_filled_in_is_no_toml_and_is_not_filled_in_again() -> None:
    main = MAIN + 'respond = { status = 200, body = "${TEXT} $${TEXT} {uri} $1" }\n'
    respond = loaded(main.replace('pool = "a"', ""), {}, {"TEXT": '" ] ${HOME}\\n'}).routes[0].respond
    assert respond is not None and respond.body == '" ] ${HOME}\\n ${TEXT} {uri} $1'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${HOST}", "HOST is not in the environment; ${HOST:-default} has a default"),
        ("${}", "${} is no ${NAME}"),
        ("${HO ST}", "${HO ST} is no ${NAME}"),
        ("${HOST-x}", "${HOST-x} is no ${NAME}"),
    ],
)
def test_what_is_not_in_the_environment_is_told_at_its_place(text: str, said: str) -> None:
    (line,) = problems(MAIN, {"sites/b.toml": SITE.replace("b.example", text)})
    assert line.startswith("/etc/edge/sites/b.toml:6:1 routes[0].host: ") and said in line


def test_a_comment_may_say_anything() -> None:
    assert loaded(MAIN + "# ${NOT_THERE}\n", {}).routes[0].name == "first"


def test_the_hash_tells_every_text() -> None:
    files = {"sites/b.toml": SITE}
    hashes = {
        config_hash(MAIN),
        config_hash(MAIN, files),
        config_hash(MAIN, {"sites/c.toml": SITE}),
        config_hash(MAIN, {"sites/b.toml": SITE + "\n"}),
    }
    assert len(hashes) == 4


NAMES = st.sampled_from(["a", "b", "c"])
TABLES = st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
LISTS = st.lists(st.fixed_dictionaries({"x": st.integers(0, 3)}), min_size=1, max_size=2)
FILES = st.lists(st.dictionaries(NAMES, st.one_of(TABLES, LISTS), max_size=3), min_size=2, max_size=3)


@given(FILES)
def test_each_value_of_each_file_is_there_once_or_a_mistake(raws: list[dict[str, object]]) -> None:
    texts = [toml_of(raw) for raw in raws]
    sources = Sources("f.toml", texts[0], {f"{at}.toml": text for at, text in enumerate(texts[1:])})
    try:
        found = leaves(put_together(sources).raw)
    except ConfigError as error:
        found = []
        told = error.problems
    else:
        told = []
    assert all("given twice" in line for line in told)
    assert told or sorted(found) == sorted(leaf for raw in raws for leaf in leaves(raw))


def leaves(value: object, path: str = "") -> list[str]:
    """Every plain value with its path; which element of a list it was is not told."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in leaves(item, f"{path}.{name}")]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item, f"{path}[]")]
    return [f"{path}={value}"]
