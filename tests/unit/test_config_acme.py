"""`listen.https.acme`: what is accepted, what is refused and in which words, and where the files are."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from edge.config.loader import Config, load_text
from edge.config.sources import Sources
from edge.control.preflight import preflight
from edge.errors import ConfigError


def loaded(acme: str, more: str = "", http: str = '["127.0.0.1:8080"]') -> Config:
    return load_text(text_of(acme, more, http), "f.toml")


def text_of(acme: str, more: str = "", http: str = '["127.0.0.1:8080"]') -> str:
    return f"""
listen.http = {http}
pools.web.backends = [{{ url = "http://127.0.0.1:9000" }}]
routes = [{{ pool = "web" }}]
[[listen.https]]
address = "127.0.0.1:8443"
acme = {acme}
{more}
"""


def test_names_are_lower_case_and_come_after_the_files_that_are_given() -> None:
    more = 'certificates = [{ cert = "c.pem", key = "k.pem" }]'
    config = loaded('{ directory = "letsencrypt", names = ["WWW.Example.com", "example.com"] }', more)
    assert config.listen.https[0].pems("var") == [
        ("c.pem", "k.pem"),
        ("var/acme/letsencrypt/www.example.com.pem",) * 2,
        ("var/acme/letsencrypt/example.com.pem",) * 2,
    ]


def test_each_directory_has_a_folder_of_its_own_that_no_url_can_leave() -> None:
    folders = set()
    for directory in (
        *("letsencrypt", "letsencrypt-staging", "https://127.0.0.1:14000/dir", "https://127.0.0.1:14000/other"),
        *("https://[::1]:1/../../..", "https://ca.test/a%2f..%2f..", "https://CA.test"),
    ):
        acme = loaded(f'{{ directory = "{directory}", names = ["a.test"] }}').listen.https[0].acme
        assert acme is not None
        folders.add(acme.folder)
        assert Path(acme.pem("var", "a.test")).resolve().parents[2] == Path("var").resolve()
    assert len(folders) == 7


@pytest.mark.parametrize(
    ("acme", "told"),
    [
        ('{ directory = "letsencrypt", names = [] }', "acme.names: "),
        ('{ directory = "letsencrypt", names = ["*.a.test"] }', "a wildcard cannot be proved over HTTP"),
        ('{ directory = "letsencrypt", names = ["192.0.2.1"] }', "must be a host name"),
        ('{ directory = "letsencrypt", names = ["a_b.test"] }', "must be a host name"),
        ('{ directory = "letsencrypt", names = ["a.test/../x"] }', "must be a host name"),
        ('{ directory = "letsencrypt", names = ["a.test", "A.test"] }', '"a.test" is there twice'),
        ('{ directory = "letsencript", names = ["a.test"] }', 'must be "letsencrypt"'),
        ('{ directory = "http://ca.test/dir", names = ["a.test"] }', "or an https URL"),
        ('{ directory = "https://me:pw@ca.test/dir", names = ["a.test"] }', "or an https URL"),
        ('{ directory = "letsencrypt", names = ["a.test"], email = "ops" }', "acme.email: must be an address"),
        ('{ names = ["a.test"] }', "acme.directory"),
    ],
)
def test_what_cannot_be_had_is_refused_at_its_place(acme: str, told: str) -> None:
    with pytest.raises(ConfigError) as failed:
        loaded(acme)
    assert told in "\n".join(failed.value.problems)
    assert failed.value.problems[0].startswith("f.toml:")
    assert "pw@" not in str(failed.value.problems)


def test_a_listener_needs_certificates_or_acme() -> None:
    with pytest.raises(ConfigError) as failed:
        load_text(text_of("x").replace("acme = x", ""), "f.toml")
    assert failed.value.problems == ["f.toml:5:10 listen.https[0]: has no certificate: give certificates or acme"]


def test_one_directory_has_one_account() -> None:
    more = '[[listen.https]]\naddress = "127.0.0.1:8444"\n'
    more += 'acme = { directory = "letsencrypt", names = ["b.test"], email = "other@a.test" }'
    with pytest.raises(ConfigError) as failed:
        loaded('{ directory = "letsencrypt", names = ["a.test"], email = "ops@a.test" }', more)
    assert "email is another one than that of https[0]" in failed.value.problems[0]


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.config.acme.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as failed:
        loaded('{ directory = "letsencrypt", names = ["a.test"] }')
    assert "pip install 'streamgate[acme]'" in failed.value.problems[0]


def test_the_check_opens_the_servers_ca_and_wants_a_way_for_its_question(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"

    def found(http: str = '["127.0.0.1:8080"]') -> tuple[str, str]:
        text = text_of(f'{{ directory = "https://ca.test/dir", names = ["a.test"], ca = "{ca}" }}', "", http)
        findings = preflight(load_text(text, "f.toml"), Sources("f.toml", text))
        return "\n".join(findings.errors), "\n".join(findings.warnings)

    assert "listen.https[0].acme.ca" in found()[0] and "No such file" in found()[0]
    ca.write_text("hello")
    assert "listen.https[0].acme.ca" in found()[0]
    trustme.CA().cert_pem.write_to_path(ca)
    assert "acme" not in found()[0]
    assert "acme" not in found()[1] and "give listen.http" in found("[]")[1]
