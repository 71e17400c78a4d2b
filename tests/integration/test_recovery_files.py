"""What a configuration names beside itself: pages, password files and keys of routes are in points and come back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kit.recovery import KEY
from recovery_site import Site

ROUTES = """
[[routes]]
host = "pages.example"
pool = "web"
error_pages = { "502-504" = "pages/sorry.html" }
[[routes]]
host = "told.example"
respond = { file = "pages/told.txt" }
[[routes]]
host = "members.example"
pool = "web"
auth = { basic = "members" }
"""
FILES = {"pages/sorry.html": "<p>later</p>", "pages/told.txt": "told", "members": "ada:$2b$04$" + "a" * 53 + "\n"}


def lost_after_a_drill(site: Site, home: Path, elsewhere: Path) -> Site:
    """A point that a drill has proved; then its machine is gone, and another one is there."""
    try:
        site.start()
        assert site.gateway is not None
        point = site.edge("snapshot", "take").strip()
        found = json.loads(site.edge("drill", "--json", "--point", point))
        assert found["passed"], found["problems"]
    finally:
        if site.gateway is not None:
            site.gateway.kill()
    shutil.rmtree(home)
    elsewhere.mkdir()
    return Site(elsewhere, "")


@pytest.mark.parametrize("encrypted", [False, True])
def test_files_that_routes_name_stand_beside_the_configuration(tmp_path: Path, encrypted: bool) -> None:
    home, elsewhere = tmp_path / "site", tmp_path / "fresh machine"
    home.mkdir()
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "key").chmod(0o600)
    for name, text in FILES.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)
    site = Site(home, f"file:{tmp_path}/points", f'encryption_key_file = "{tmp_path}/key"' if encrypted else "")
    site._toml += ROUTES
    fresh = lost_after_a_drill(site, home, elsewhere)
    key = ("--key-file", f"{tmp_path}/key") if encrypted else ()
    fresh.edge("restore", "--repository", f"file:{tmp_path}/points", *key)
    for name, text in FILES.items():
        if name != "members" or encrypted:
            assert (elsewhere / name).read_text() == text
        else:  # a secret, which the point says it has not
            assert not (elsewhere / name).exists() and "members is a secret" in fresh.said


SITE = """
[[routes]]
host = "included.example"
respond = { file = "page.txt" }
"""


def test_included_files_and_what_they_name_are_in_points(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "site", tmp_path / "fresh machine"
    (home / "sites").mkdir(parents=True)
    files = {"sites/a.toml": SITE, "sites/page.txt": "included"}
    for name, text in files.items():
        (home / name).write_text(text)
    site = Site(home, f"file:{tmp_path}/points", "")
    site._toml = 'include = ["sites/*.toml"]\n' + site._toml
    fresh = lost_after_a_drill(site, home, elsewhere)
    fresh.edge("restore", "--repository", f"file:{tmp_path}/points")
    for name, text in files.items():
        assert (elsewhere / name).read_text() == text
    restored = next(tmp_path.rglob("restored"))
    assert {name: (restored / name).read_text() for name in files} == files
    fresh.edge("check")
