"""`edge check` opens what the file names and compares it with the machine: each finding has its place in the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from edge.config.loader import load_text
from edge.config.sources import Sources
from edge.control.preflight import Findings, preflight
from edge.control.preflight_budgets import Machine, memory_limits

LARGE = Machine(memory=8 * 2**30, open_files=1 << 20)
FILE = """
[listen]
http = ["127.0.0.1:8080"]
@LISTEN@
[state]
path = "@DIR@/state"
[admin]
token_file = "@DIR@/token"
[log]
access = "off"
[pools.web]
@POOL@
[[pools.web.backends]]
url = "https://127.0.0.1:9000"
[[routes]]
pool = "web"
@MORE@
"""


def look(folder: Path, machine: Machine = LARGE, listen: str = "", pool: str = "", more: str = "") -> Findings:
    text = FILE.replace("@LISTEN@", listen).replace("@POOL@", pool).replace("@MORE@", more)
    text = text.replace("@DIR@", str(folder))
    return preflight(load_text(text, "f.toml"), Sources("f.toml", text), machine)


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    """good.pem/good.key, other.key, old.pem/old.key, text, a folder, a pipe."""
    authority = trustme.CA()
    for name in ("good", "other"):
        found = authority.issue_cert(f"{name}.test")
        found.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        found.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def https(folder: Path, cert: str, key: str) -> str:
    pair = f'{{ cert = "{folder / cert}", key = "{folder / key}" }}'
    return f'[[listen.https]]\naddress = "127.0.0.1:8443"\ncertificates = [{pair}]'


def test_what_is_right_is_said_nothing_of(pems: Path) -> None:
    assert look(pems, listen=https(pems, "good.pem", "good.key")) == Findings()


def test_a_host_without_a_certificate_is_worth_a_warning(pems: Path) -> None:
    more = '[[routes]]\nhost = "good.test"\npool = "web"\n[[routes]]\nhost = "other.test"\npool = "web"'
    found = look(pems, listen=https(pems, "good.pem", "good.key"), more=more)
    assert not found.errors
    (warned,) = [each for each in found.warnings if "certificate" in each and "covers" in each]
    assert warned.startswith("f.toml:") and "routes[2].host: no certificate of listen.https covers other.test" in warned


def test_authorities_of_clients_are_read(pems: Path) -> None:
    lines = https(pems, "good.pem", "good.key")
    assert not look(pems, listen=f'{lines}\nclient_ca = "{pems}/good.pem"').errors
    for name, said in (("text", "no certificate"), ("none", "No such file"), ("pipe", "not a regular file")):
        (error,) = look(pems, listen=f'{lines}\nclient_ca = "{pems}/{name}"').errors
        assert "listen.https[0].client_ca: " in error and said in error


def test_a_rule_for_certificates_that_nobody_asks_for_is_worth_a_warning(pems: Path) -> None:
    lines, rule = https(pems, "good.pem", "good.key"), "auth = { client_certificate = true }"
    told = [each for each in look(pems, listen=lines, more=rule).warnings if "client_certificate" in each]
    assert len(told) == 1 and "lets nobody in: no listen.https has client_ca" in told[0]
    asked = f'{lines}\nclient_ca = "{pems}/good.pem"'
    assert not [each for each in look(pems, listen=asked, more=rule).warnings if "client_certificate" in each]


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("none.pem", "good.key", "none.pem: No such file"),
        ("good.pem", "none.key", "none.key: No such file"),
        ("good.pem", "other.key", "its key is that of another certificate"),
        ("text", "good.key", "no certificate or no key in PEM form"),
        ("empty", "good.key", "no certificate or no key in PEM form"),
        ("good.pem", "text", "no certificate or no key in PEM form"),
        ("folder", "good.key", "Is a directory"),
        ("pipe", "good.key", "not a regular file"),
        ("good.pem", "pipe", "not a regular file"),
    ],
)
def test_a_certificate_that_cannot_serve_is_an_error(pems: Path, cert: str, key: str, said: str) -> None:
    found = look(pems, listen=https(pems, cert, key))
    assert len(found.errors) == 1
    assert found.errors[0].startswith("f.toml:6:17 listen.https[0].certificates[0]: ")
    assert said in found.errors[0]


@pytest.mark.parametrize("word", ["ca", "cert"])
def test_so_is_one_for_backends(pems: Path, word: str) -> None:
    key = f', key = "{pems}/good.key"' if word == "cert" else ""
    found = look(pems, pool=f'tls = {{ {word} = "{pems}/none.pem"{key} }}')
    assert len(found.errors) == 1
    assert "pools.web.tls: " in found.errors[0] and "No such file" in found.errors[0]


@pytest.mark.parametrize(
    ("more", "key", "said"),
    [
        ('[cache]\nmemory = "900TiB"', "cache.memory", "900.0 TiB is more than this machine has (8.0 GiB)"),
        ('[cache]\ndisk = { path = "@DIR@/text/x", size = "64MiB" }', "cache.disk.path", "text is not a folder"),
        ('[cache]\ndisk = { path = "@DIR@/x", size = "900TiB" }', "cache.disk.size", "more than the whole file system"),
    ],
)
def test_what_cannot_be_had_is_an_error(pems: Path, more: str, key: str, said: str) -> None:
    found = look(pems, more=more)
    assert len(found.errors) == 1
    assert f" {key}: " in found.errors[0] and said in found.errors[0]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda text: text.replace('path = "@DIR@/state"', 'path = "@DIR@/text"'), "state.path"),
        (lambda text: text.replace("@DIR@/token", "@DIR@/pipe"), "admin.token_file"),
        (lambda text: text.replace("@DIR@/token", "@DIR@/text/token"), "admin.token_file"),
        (lambda text: text.replace('"off"', '"@DIR@/folder"'), "log.access"),
        (lambda text: text.replace('"off"', '"@DIR@/text/log"'), "log.access"),
    ],
)
def test_a_path_that_cannot_be_used_is_an_error(
    pems: Path, change: Callable[[str], str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "FILE", change(FILE))
    found = look(pems)
    assert len(found.errors) == 1
    assert f" {key}: " in found.errors[0]


CHOSEN = {"more": "[limits]\nconnections = 2000"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"machine": Machine(300 * 2**20, 1 << 20)}, "cache.memory: 256.0 MiB leaves little"),
        ({"machine": Machine(8 * 2**30, 4096)}, "limits.connections: 20000 in each worker"),
        ({"machine": Machine(8 * 2**30, 3063), **CHOSEN}, "may need 3064 open files; the hard limit here is 3063"),
        ({"machine": Machine(8 * 2**30, 4063), "pool": "max_in_flight = 0", **CHOSEN}, "may need 4064 open files"),
        ({"more": '[cache]\nmemory = "16MiB"'}, "cache.max_object: is more than cache.memory"),
        ({"listen": 'trusted_proxies = ["0.0.0.0/0"]'}, "listen.trusted_proxies[0]: "),
        ({"listen": 'proxy_protocol = ["unix", "::/0"]'}, "listen.proxy_protocol[1]: "),
        ({"more": '[geoip]\ndatabase = "@DIR@/none.mmdb"'}, "geoip.database: GeoIP database"),
        ({"more": '[geoip]\ndatabase = "@DIR@/text"'}, "geoip.database: GeoIP database"),
        ({"more": '[geoip]\ndatabase = "@DIR@/pipe"'}, "geoip.database: GeoIP database"),
        ({"pool": 'up_after = "5s"'}, 'pools.web.up_after: has no effect: failover is "spill"'),
        ({"pool": 'hash = { on = "client" }'}, "pools.web.hash: has no effect"),
        ({"pool": 'health = { kind = "tcp", path = "/x" }'}, "pools.web.health.path: has no effect"),
        ({"more": "cache = { prefetch = { concurrency = 9 } }"}, "routes[0].cache.prefetch.concurrency: has no effect"),
    ],
)
def test_what_works_but_not_as_meant_is_a_warning(tmp_path: Path, given: dict[str, object], said: str) -> None:
    found = look(tmp_path, **given)  # type: ignore[arg-type]
    assert found.errors == []
    assert len(found.warnings) == 1
    assert said in found.warnings[0]


DISK = '[cache]\ndisk = { path = "@DIR@/tier", size = "10GiB", min_free = "1GiB" }'


@pytest.mark.parametrize(
    ("total", "free", "is_there", "said"),
    [
        (9, 9, False, "cache.disk.size: is more than the whole file system (9.0 GiB)"),
        (10, 10, False, "cache.disk.size: leaves less than min_free (1.0 GiB) of a file system of 10.0 GiB"),
        (20, 10, False, "cache.disk.size: is with min_free more than is free (10.0 GiB)"),
        (20, 10, True, ""),  # what the tier holds already is not free, and is its own
        (20, 11, False, ""),
        (20, 0, True, "state.path: "),
    ],
)
def test_the_disk_s_budget(
    total: int, free: int, is_there: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=total * 2**30, free=free * 2**30)
    monkeypatch.setattr("edge.control.preflight_budgets.shutil.disk_usage", lambda path: usage)
    if is_there:
        (tmp_path / "tier" / "store").mkdir(parents=True)
    found = look(tmp_path, more=DISK)
    assert [said in line for line in (*found.errors, *found.warnings)] == ([True] if said else [])


def test_memory_is_what_every_control_group_above_allows(tmp_path: Path) -> None:
    unit = tmp_path / "system.slice" / "edge.service"
    unit.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/system.slice/edge.service\n")
    (unit / "memory.max").write_text("1000\n")
    (tmp_path / "system.slice" / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path.parent / "memory.max").write_text("1\n")  # not a control group
    assert sorted(memory_limits(tmp_path, tmp_path / "own")) == [1000, 3000]
    assert list(memory_limits(tmp_path / "none", tmp_path / "none")) == []


def test_the_admin_listener_without_tls_on_the_network_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "FILE", FILE.replace("[admin]", '[admin]\nlisten = "0.0.0.0:9900"'))
    (line,) = look(tmp_path).warnings
    assert "admin.listen: 0.0.0.0:9900 is not on loopback and has no TLS" in line


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("def f(:\n", "SyntaxError"),
        ("import no_such_module_at_all\n", "bad.py:1: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("app = 5\n", "a function that makes one, got int"),
        ("print('noise')\nraise SystemExit(3)\n", "SystemExit: 3"),
        ("import os\nos._exit(0)\n", "ended without an answer"),
        ("other = 5\n", "bad has no app (it is @DIR@/bad.py)"),
        ("import os\napp = os.no_such_word\n", "bad.py:2: AttributeError: module 'os' has no attribute 'no_such_word'"),
    ],
)
def test_an_application_is_tried_elsewhere(body: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(body)
    (tmp_path / "good.py").write_text("from aiohttp import web\napp = web.Application()\n")
    text = FILE.replace("@LISTEN@", "").replace("@POOL@", "").replace("@MORE@", "").replace("@DIR@", str(tmp_path))
    text = text.replace('url = "https://127.0.0.1:9000"', 'app = "bad:app"\n[[pools.web.backends]]\napp = "good:app"')
    file = str(tmp_path / "f.toml")
    found = preflight(load_text(text, file), Sources(file, text), LARGE)
    broken = [line for line in found.errors if "bad:app" in line]
    assert len(broken) == 1 and broken[0].startswith(f"{file}:14:1 pools.web.backends[0].app:")
    assert wanted.replace("@DIR@", str(tmp_path)) in broken[0]


SENTINELS = "[fleet]\nurl = 'redis+sentinel://h/main'\n"


@pytest.mark.parametrize(
    ("more", "said", "fatal"),
    [
        ("encryption_key_file = '@DIR@/none'", "openssl rand -hex 32", True),
        ("encryption_key_file = '@DIR@/open'", "others may read the key: chmod 600", True),
        ("encryption_key_file = '@DIR@/short'", "must hold 32 bytes", True),
        ("runbooks = '@DIR@/none'", "is no directory", True),
        ("runbooks = '@DIR@/books'", "steps[0].do: must be one of", True),
        ("# redis://user:secret@host", "holds a password:", True),
        ("# sentinel_password = 'secret'", "holds a password:", True),
        ("incremental = '1h'", "targets.rpo is 900 s, and points are up to 3630 s apart", False),
        ("", "inside state.path", False),
    ],
)
def test_recovery_points_that_could_not_be_taken(tmp_path: Path, more: str, said: str, fatal: bool) -> None:
    for name, text, mode in (("open", "5a" * 32, 0o644), ("short", "5a", 0o600)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "bad.toml").write_text("name = 'a'\ndescription = 'b'\nsteps = [{ do = 'shell' }]")
    inside = "/state" if said == "inside state.path" else ""
    table = f"[snapshots]\nrepository = 'file:{tmp_path}{inside}/points'\n{more}".replace("@DIR@", str(tmp_path))
    found = look(tmp_path, more=table)
    lines = found.errors if fatal else found.warnings
    assert [line for line in lines if said in line], (found.errors, found.warnings)
    good = tmp_path / "key"
    good.write_text("5a" * 32)
    good.chmod(0o600)
    sound = f"[snapshots]\nrepository = 'file:{tmp_path}/points'\nencryption_key_file = '{good}'"
    assert not [line for line in look(tmp_path, more=sound).errors if "snapshots" in line]


def test_hooks_are_looked_at_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Hooks:\n    async def request(self, head):\n        return None\n")
    text = (
        'listen.http = ["127.0.0.1:0"]\npools.p.backends = [{ url = "http://127.0.0.1:1" }]\n'
        'routes = [{ pool = "p", hooks = ["mine:Hooks", "mine:None_such"] }]\n'
    )
    found = preflight(load_text(text, "f"), Sources(str(tmp_path / "f.toml"), text))
    errors = [line for line in found.errors if "mine:" in line]
    assert len(errors) == 2 and all(":3:" in line and "hooks" in line for line in errors)
    assert "must be a plain function" in errors[0] and "has no None_such" in errors[1]


@pytest.mark.parametrize(
    ("more", "key", "said"),
    [
        ('[cache]\nshared = { url = "rediss://h", ca_file = "@DIR@/text" }', "cache.shared.ca_file", "text"),
        ('[fleet]\nurl = "rediss://h"\nca_file = "@DIR@/none.pem"', "fleet.ca_file", "No such file"),
        (f"{SENTINELS}sentinel_password = {{ file = '@DIR@/none' }}", "fleet.sentinel_password.file", "No such file"),
        (f"{SENTINELS}sentinel_password = {{ file = '@DIR@/good.pem' }}", "fleet.sentinel_password.file", "one word"),
        ('[fleet]\nurl = "redis://h"\nkey_file = "@DIR@/none"', "fleet.key_file", "No such file"),
        ('[fleet]\nurl = "redis://h"\nkey_file = "@DIR@/pipe"', "fleet.key_file", "not a regular file"),
        ('[fleet]\nurl = "redis://h"\nkey_file = "@DIR@/text"', "fleet.key_file", "16 bytes at least"),
    ],
)
def test_what_a_fleet_needs_is_opened(pems: Path, more: str, key: str, said: str) -> None:
    found = look(pems, more=more)
    assert len(found.errors) == 1
    assert f"{key}: " in found.errors[0] and said in found.errors[0]


def test_an_authority_for_a_server_without_tls_has_no_effect(pems: Path) -> None:
    more = f'[fleet]\nurl = "redis://h"\nca_file = "{pems}/good.pem"'
    assert any("fleet.ca_file: has no effect" in line for line in look(pems, more=more).warnings)
    more = '[fleet]\nurl = "redis://h"\nsentinel_user = "u"\nsentinel_password = "p"'
    idle = [line for line in look(pems, more=more).warnings if "url is not redis+sentinel://" in line]
    assert len(idle) == 2
