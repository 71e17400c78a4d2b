"""The rules of a route in the file: a wrong key is a line with its place and, where there is one, the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config.idle import idle_keys
from edge.config.loader import load_text
from edge.config.sources import Sources
from edge.control.preflight import preflight
from edge.errors import ConfigError

HEAD = """\
listen.http = ["127.0.0.1:8080"]
pools.web.backends = [{ url = "http://127.0.0.1:9000" }]
[[routes]]
pool = "web"
"""
WRONG = [
    ('alow = ["10.0.0.0/8"]', ':5:1 routes[0].alow: unknown key, did you mean "allow"?'),
    ('allow = ["10.0.0.1/8"]', ":5:10 routes[0].allow[0]: must be a network without host bits set"),
    ('deny = "10.0.0.0/8"', ":5:1 routes[0].deny: must be a list"),
    ("match = { method = [] }", ':5:11 routes[0].match.method: unknown key, did you mean "methods"?'),
    ('match = { headers = { "X A" = "1" } }', ':5:23 routes[0].match.headers."X A": must be a field name'),
    (
        'match = { cookies = { "a*" = "1" } }',
        ':5:23 routes[0].match.cookies."a*": must be a cookie name',
    ),
    ('match = { query = { "a*" = "1" } }', ':5:21 routes[0].match.query."a*": is one name and takes no pattern'),
    ('match = { scheme = "ftp" }', ':5:11 routes[0].match.scheme: must be "http" or "https"'),
    ('match = { clients = ["x"] }', ":5:22 routes[0].match.clients[0]: must be a network"),
    ('path_regex = "^/(?=a)"', ":5:1 routes[0].path_regex: is no pattern that runs in linear time"),
    ('path_regex = "("', ":5:1 routes[0].path_regex: is no pattern that runs in linear time"),
    ("path_regex = '(a+)\\1'", ":5:1 routes[0].path_regex: is no pattern that runs in linear time"),
    ('strip_prefix = "api"', ':5:1 routes[0].strip_prefix: must be a path such as "/api"'),
    ('rewrite = { match = "^/(a)$", to = "/$2" }', ":5:1 routes[0].rewrite: to names group 2, but match has 1"),
    ('rewrite = { match = "^/(a)$", to = "x" }', ':5:1 routes[0].rewrite: to must be a path such as "/new/$1"'),
    ('rewrite = { match = "^/a$", to = "/b\\r\\nx" }', ':5:1 routes[0].rewrite: to must be a path such as "/new/$1"'),
    ('redirect = { to = "https://x", stat = 1 }', ':5:32 routes[0].redirect.stat: unknown key, did you mean "status"?'),
    ('redirect = { to = "https://x", status = 200 }', ":5:32 routes[0].redirect.status: must be 301, 302, 303, 307 or"),
    ('bandwidth = { rate = "0KiB/s" }', ':5:15 routes[0].bandwidth.rate: must be bytes in a second such as "500KiB/s"'),
    ('bandwidth = { rate = "500KiB" }', ":5:15 routes[0].bandwidth.rate: must be bytes in a second"),
    ('bandwidth = { burst = "1MiB" }', ":5:1 routes[0].bandwidth.rate: is missing"),
    (
        'bandwidth = { rate = "1MiB/s", by = "respons" }',
        ':5:32 routes[0].bandwidth.by: must be "response", "client", "route", "header:<name>" or',
    ),
    ('redirect = { to = "x" }', ':5:14 routes[0].redirect.to: must be a URL such as "https://{host}{uri}" or a path'),
    ('redirect = { to = "//x" }', ':5:14 routes[0].redirect.to: must be a URL such as "https://{host}{uri}" or a path'),
    (
        'redirect = { to = "https://{hots}/" }',
        ":5:14 routes[0].redirect.to: unknown placeholder {hots}, did you mean {host}?",
    ),
    ('redirect = { to = "https://{uri}" }', ":5:14 routes[0].redirect.to: has no host: write https://{host}{uri}"),
    (
        'request_headers = { set = { "X-A" = "a\\r\\nB: c" } }',
        ":5:29 routes[0].request_headers.set.X-A: must be one line",
    ),
    (
        'request_headers = { set = { "Te" = "a" } }',
        ":5:29 routes[0].request_headers.set.Te: Te is for the gateway alone",
    ),
    (
        'request_headers = { set = { "X-A" = "{header}" } }',
        ":5:29 routes[0].request_headers.set.X-A: placeholder {header}",
    ),
    (
        'request_headers = { set = { "X-A" = "1", x-a = "2" } }',
        ':5:21 routes[0].request_headers.set: names the field "x-a"',
    ),
    (
        'request_headers = { remove = ["Host"] }',
        ":5:31 routes[0].request_headers.remove[0]: Host can be set, not added or removed",
    ),
    (
        'request_headers = { add = { Host = "a" } }',
        ":5:29 routes[0].request_headers.add.Host: Host can be set, not added or removed",
    ),
    (
        'response_headers = { set = { Content-Length = "1" } }',
        ":5:30 routes[0].response_headers.set.Content-Length: Content-",
    ),
    ("response_headers = { sett = {} }", ':5:22 routes[0].response_headers.sett: unknown key, did you mean "set"?'),
    ('response_headers = { add = { "X:" = "1" } }', ':5:30 routes[0].response_headers.add."X:": must be a field name'),
    ('respond = { body = "x" }', ":4:1 routes[0].pool: has no effect: respond answers every request"),
    ('rate_limit = { rate = "100" }', ':5:16 routes[0].rate_limit.rate: must be a rate such as "100/s"'),
    ('rate_limit = { rate = "1/s", by = "clients" }', ':5:30 routes[0].rate_limit.by: must be "client"'),
    ('rate_limit = { rate = "1/s", burst = 0 }', ":5:30 routes[0].rate_limit.burst: must be at least 1, got 0"),
    (
        "concurrency = { per_clients = 1 }",
        ':5:17 routes[0].concurrency.per_clients: unknown key, did you mean "per_client"?',
    ),
    ("auth = {}", ":5:1 routes[0].auth: must have one of basic, jwt, forward and client_certificate, got none"),
    (
        'auth = { basic = "a", forward = "http://b" }',
        ":5:1 routes[0].auth: must have one of basic, jwt, forward and client_certificate, got",
    ),
    ('auth = { forward = "ftp://b" }', ":5:10 routes[0].auth.forward: must be a URL such as"),
    ('auth = { forward = "http://u:p@b/" }', ":5:10 routes[0].auth.forward: must be a URL such as"),
    ('auth = { basik = "a" }', ':5:10 routes[0].auth.basik: unknown key, did you mean "basic"?'),
    (
        'auth = { jwt = { jwks = "a", isuer = "b" } }',
        ":5:30 routes[0].auth.jwt.isuer: unknown key, did you mean",
    ),
    ('compress = { codings = ["brotli"] }', ':5:25 routes[0].compress.codings[0]: must be "zstd", "br" or "gzip"'),
    ('compress = { types = ["html"] }', ':5:23 routes[0].compress.types[0]: must be a media type such as "text/html"'),
    ('split = [{ pool = "wep" }]', ':5:12 routes[0].split[0].pool: no pool named "wep", did you mean "web"?'),
    ('split = [{ pool = "web", wieght = 2 }]', ':5:26 routes[0].split[0].wieght: unknown key, did you mean "weight"?'),
    ('sticky = "cokie"', ':5:1 routes[0].sticky: must be "none", "client", "cookie" or "cookie:<name>"'),
    ('mirror = { pool = "shadow" }', ':5:12 routes[0].mirror.pool: no pool named "shadow"'),
    ('mirror = { pool = "web", share = "200%" }', ":5:26 routes[0].mirror.share: must be between 0% and 100%"),
    ('affinity = { cookie = "a b" }', ":5:14 routes[0].affinity.cookie: must be a cookie name"),
    ('error_pages = { "200" = "a" }', ":5:17 routes[0].error_pages.200: must be statuses of errors"),
    ('error_pages = { "504-502" = "a" }', ":5:17 routes[0].error_pages.504-502: must be statuses of errors"),
    ("compress = { level = 12 }", ":5:14 routes[0].compress.level: must be at most 9, got 12"),
]


@pytest.mark.parametrize(("line", "wanted"), WRONG)
def test_a_mistake_is_a_line_with_its_place(line: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(HEAD + line + "\n", "f")
    assert any(each.startswith(f"f{wanted}") for each in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("", "f:3:3 routes[0]: has no pool: name one of web, or redirect or respond"),
        (
            'redirect = { to = "/x" }\nstrip_prefix = "/x"',
            "f:5:1 routes[0].strip_prefix: has no effect: the route has no",
        ),
        (
            'respond = { body = "x" }\nredirect = { to = "/x" }',
            "f:5:1 routes[0].redirect: has no effect: respond answers",
        ),
        ("respond = { status = 204, body = 'x' }", "f:4:1 routes[0].respond: a 204 has no body"),
        ("respond = { status = 99 }", "f:4:13 routes[0].respond.status: must be at least 200, got 99"),
        ("respond = { body = 'x', file = 'y' }", "f:4:1 routes[0].respond: has body or file, not both"),
    ],
)
def test_a_route_without_a_pool(route: str, wanted: str) -> None:
    text = HEAD.replace('pool = "web"\n', route + "\n")
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f")
    assert any(each.startswith(wanted) for each in caught.value.problems), caught.value.problems


def test_two_routes_of_one_place_differ_in_their_conditions() -> None:
    load_text(HEAD + 'match = { methods = ["PUT"] }\n[[routes]]\npool = "web"\n', "f")
    with pytest.raises(ConfigError, match="host and path"):
        load_text(
            HEAD + 'match = { methods = ["PUT"] }\n[[routes]]\npool = "web"\nmatch = { methods = ["PUT"] }\n', "f"
        )


def test_a_route_without_a_pool_has_no_cache() -> None:
    config = load_text(HEAD + '[[routes]]\npath = "/x"\nredirect = { to = "/y" }\n', "f")
    assert config.routes[1].cache is None and config.routes[1].pool is None


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (['match = { methods = ["GET", "PUT"] }', 'match = { methods = ["PUT"], scheme = "http" }'], ["routes", 2]),
        (['match = { headers = { X-A = "*" } }', 'match = { headers = { x-a = "1", X-B = "2" } }'], ["routes", 2]),
        (['match = { headers = { X-A = "1" } }', 'match = { headers = { x-a = "*" } }'], None),
        (['match = { cookies = { a = "" } }', 'match = { cookies = { a = "*" } }'], None),
        (['path_regex = "^/a"', 'path_regex = "^/a"\nmatch = { methods = ["GET"] }'], ["routes", 2]),
        (['path_regex = "^/a"', 'match = { methods = ["GET"] }'], None),
        (['methods = ["GET"]\nmatch = { methods = ["PUT"] }'], ["routes", 1, "match", "methods"]),
        (['match = { scheme = "https" }'], ["routes", 1, "match", "scheme"]),
        (['match = { clients = ["10.0.0.0/8"] }', 'match = { clients = ["10.2.0.0/16"] }'], ["routes", 2]),
        (['match = { clients = ["10.2.0.0/16"] }', 'match = { clients = ["10.0.0.0/8", "::/0"] }'], None),
        (['path = "/b"\nallow = ["::1", "10.2.0.0/16"]\ndeny = ["10.0.0.0/8"]'], ["routes", 1, "allow", 1]),
        (['path = "/b"\nallow = ["10.0.0.0/8"]\ndeny = ["10.2.0.0/16"]'], None),
        (['path = "/b"\npath_regex = "^/c/[0-9]+"'], ["routes", 1, "path_regex"]),
        (['path = "/b"\npath_regex = "^/[c-e]+/.*"'], ["routes", 1, "path_regex"]),
        (['path = "/b/c"\npath_regex = "^/b"'], None),
        (['path = "/b"\npath_regex = "^/b(/c)?$"'], None),
        (['path = "/b"\npath_regex = "^/[a-c]/.*|^/d"'], None),
        (['path = "/b"\npath_regex = "/c$"'], None),
        (['path = "/b"\npath_regex = "^.*/c$"'], None),
        (['path = "/b"\npath_regex = "(?i)^/B"'], None),
        (['path = "/b"\nstrip_prefix = "/api"'], ["routes", 1, "strip_prefix"]),
        (['path = "/api/x"\nstrip_prefix = "/api"'], None),
        (['path = "/b"\nmatch = {}'], ["routes", 1, "match"]),
        (['path = "/b"\nconcurrency = {}'], ["routes", 1, "concurrency"]),
        (['path = "/b"\nconcurrency = { total = 1 }'], None),
        (['path = "/b"\nrequest_headers = {}'], ["routes", 1, "request_headers"]),
        (['path = "/b"\nresponse_headers = { set = {} }'], ["routes", 1, "response_headers"]),
        (['path = "/b"\nsticky = "client"'], ["routes", 1, "sticky"]),
        (['path = "/b"\nmirror = { pool = "web", share = "0%" }'], ["routes", 1, "mirror", "share"]),
        (['path = "/b"\nmap_back = false'], ["routes", 1, "map_back"]),
        (['path = "/b"\nmap_back = false\npreserve_host = false'], None),
        (
            ['path = "/b"\npreserve_host = false\nrequest_headers = { set = { host = "x" } }'],
            ["routes", 1, "preserve_host"],
        ),
        (
            ['path = "/b"\nrate_limit = { rate = "1/s", by = "route", clients = 9 }'],
            ["routes", 1, "rate_limit", "clients"],
        ),
        (['path = "/b"\nauth = { forward = "http://b/", realm = "x" }'], ["routes", 1, "auth", "realm"]),
        (['path = "/b"\nauth = { basic = "a", copied = ["X-A"] }'], ["routes", 1, "auth", "copied"]),
        (['path = "/b"\nauth = { basic = "a", timeout = "1s" }'], ["routes", 1, "auth", "timeout"]),
        (['path = "/b"\nauth = { jwt = { jwks = "http://b/" }, timeout = "1s" }'], None),
    ],
)
def test_what_can_never_act_is_told(lines: list[str], wanted: list[object] | None) -> None:
    text = HEAD + "".join(f'[[routes]]\npool = "web"\nname = "r{at}"\n{each}\n' for at, each in enumerate(lines))
    found = [list(problem.path) for problem in idle_keys(load_text(text, "f"))]
    assert found == ([] if wanted is None else [wanted])


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ('auth = { basic = "absent" }', "auth.basic"),
        ('auth = { basic = "weak" }', "auth.basic"),
        ('auth = { jwt = { jwks = "weak" } }', "auth.jwt.jwks"),
        ('auth = { jwt = { jwks = "empty" } }', "auth.jwt.jwks"),
        ('match = { methods = ["PUT"] }\nrespond = { file = "absent" }', "respond.file"),
    ],
)
def test_files_are_opened_before_the_start(rule: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "weak").write_text("alice:plain\n")
    (tmp_path / "empty").write_text('{"keys": []}')
    text = (HEAD if "respond" not in rule else HEAD + "[[routes]]\n") + rule + "\n"
    file = str(tmp_path / "edge.toml")
    found = preflight(load_text(text, file), Sources(file, text))
    assert any(f"].{key}: " in line and "edge.toml:" in line for line in found.errors), found.errors


@pytest.mark.parametrize(
    ("health", "wanted"),
    [
        ('host = "a b"', ':3:24 pools.web.health.host: must be a host such as "www.example.com"'),
        ('method = "POST"', ":3:24 pools.web.health.method: must be"),
        ('headers = { Host = "a" }', ":3:36 pools.web.health.headers.Host: Host is for the gateway alone to say"),
        ('metod = "GET"', ':3:24 pools.web.health.metod: unknown key, did you mean "method"?'),
    ],
)
def test_a_mistake_in_a_probe(health: str, wanted: str) -> None:
    text = HEAD.replace("[[routes]]", f"pools.web.health = {{   {health} }}\n[[routes]]", 1)
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f")
    assert any(each.startswith(f"f{wanted}") for each in caught.value.problems), caught.value.problems
