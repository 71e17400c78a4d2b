"""What is told of certificates: which hosts of routes none covers, and when one ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from kit.tls import Files, issue

from edge.config.loader import Config, load_text
from edge.control.admin.certificates import shown
from edge.control.certificates import DAY_S, CertificateFacts, Ends, Replaced, certificates, uncovered

FILE = """
[listen]
https = [{ address = "127.0.0.1:8443", certificates = [@PAIRS@] }]
[admin]
tls = { cert = "@ADMIN@.pem", key = "@ADMIN@.key" }
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9000"
"""


def config(pairs: str, *hosts: str, admin: str = "none", more: str = "") -> Config:
    routes = "".join(f'[[routes]]\nhost = "{host}"\npool = "web"\n{more}\n' for host in hosts)
    return load_text(FILE.replace("@PAIRS@", pairs).replace("@ADMIN@", admin) + routes, "f.toml")


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("*", True),
        ("www.example.com", True),
        ("WWW.example.com", True),
        ("www.example.com:8443", True),
        ("a.shop.example.com", True),
        ("*.shop.example.com", True),
        ("[2001:db8::1]", True),
        ("example.com", False),
        ("shop.example.com", False),
        ("a.b.shop.example.com", False),
        ("*.example.com", False),
    ],
)
def test_a_host_needs_a_certificate_that_covers_it(host: str, covered: bool) -> None:
    names = {"www.example.com", "*.shop.example.com"}
    found = list(uncovered(config('{ cert = "a", key = "b" }', host), names))
    assert found == ([] if covered else [(0, host)])


@pytest.mark.parametrize("more", ['match = { scheme = "http" }', "internal = true"])
def test_a_route_that_tls_clients_do_not_get_to_needs_none(more: str) -> None:
    assert not list(uncovered(config('{ cert = "a", key = "b" }', "a.test", more=more), set()))


def test_what_is_listed_is_what_clients_get(tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="Example CA")
    good, other = issue(authority, tmp_path, "a.test", "*.a.test"), issue(authority, tmp_path, "b.test")
    mixed = Files(good.cert, other.key)
    found = shown(config(f"{good.toml}, {mixed.toml}", "a.test", "x.a.test", "b.test", admin=str(tmp_path / "b.test")))
    first, second, third = found["certificates"]
    assert (first["listener"], first["names"], first["key_fits"]) == ("127.0.0.1:8443", ["a.test", "*.a.test"], True)
    assert first["issuer"] == "Example CA" and first["days_left"] > 1 and first["expires_at"] > 0
    assert (second["key_fits"], second["names"], second["expires_at"]) == (False, [], None)
    assert "its key is that of another certificate" in second["problem"]
    assert (third["listener"], third["names"]) == ("admin", ["b.test"])
    assert [each["host"] for each in found["uncovered"]] == ["b.test"], "the admin listener's covers no route"


def test_without_tls_nothing_is_uncovered() -> None:
    text = FILE.replace('https = [{ address = "127.0.0.1:8443", certificates = [@PAIRS@] }]', 'http = ["127.0.0.1:0"]')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("tls"))
    found = shown(load_text(text + '\n[[routes]]\nhost = "a.test"\npool = "web"\n', "f.toml"))
    assert found == {"certificates": [], "uncovered": []}


def facts(days: float, cert: str = "a.pem") -> CertificateFacts:
    return CertificateFacts("l", cert, "k", ends_at=days * DAY_S)


def test_an_end_is_told_once_for_each_step_and_anew_after_a_renewal() -> None:
    ends = Ends()

    def told(now_days: float, *found: CertificateFacts) -> list[object]:
        return [each["evidence"] for each in ends.due(list(found), now_days * DAY_S)]

    one = facts(100)
    assert told(0, one) == []
    assert told(86.5, one) == ["ends in 13.5 days"]
    assert told(86.6, one) == []
    assert told(93.5, one) == ["ends in 6.5 days"]
    assert told(99.5, one) == ["ends in 0.5 days"]
    assert told(102, one, facts(200)) == ["ended 2 days ago"]
    assert told(103, one) == []
    renewed = facts(190)
    assert told(103, renewed) == []
    assert told(177, renewed) == ["ends in 13.0 days"]


def test_a_file_that_cannot_be_read_is_a_problem_and_no_error() -> None:
    (found,) = certificates(config('{ cert = "none.pem", key = "none.key" }', "*"))[:1]
    assert "No such file" in found.problem and found.ends_at is None


def test_replaced_files_are_taken_on_when_all_of_them_are_good(tmp_path: Path) -> None:
    authority, files = trustme.CA(), Replaced()
    one, two = issue(authority, tmp_path, "a.test"), issue(authority, tmp_path, "b.test")
    other = issue(authority, tmp_path, "c.test")
    here = config(f"{one.toml}, {two.toml}", "*")

    def looks(times: int) -> list[list[tuple[str, bool]] | None]:
        found = [files.look(here) for _ in range(times)]
        return [None if each is None else [(facts.cert, not facts.problem) for facts in each] for each in found]

    assert looks(3) == [None, None, None], "what a start has read is no news"
    one.cert.write_bytes(other.cert.read_bytes())
    assert looks(4) == [None, [(str(one.cert), False)], None, None], "half of it is there: told once"
    two.cert.touch()
    one.key.write_bytes(other.key.read_bytes())
    assert looks(3) == [None, [(str(one.cert), True), (str(two.cert), True)], None]
    one.key.unlink()
    assert looks(3) == [None, [(str(one.cert), False)], None]


def test_a_listener_that_comes_by_a_reload_is_no_news(tmp_path: Path) -> None:
    authority, files = trustme.CA(), Replaced()
    one, two = issue(authority, tmp_path, "a.test"), issue(authority, tmp_path, "b.test")
    assert files.look(config(one.toml, "*")) is None
    assert [files.look(config(f"{one.toml}, {two.toml}", "*")) for _ in range(3)] == [None, None, None]
