"""Names of listeners, and what may be spoken on each."""

from __future__ import annotations

from edge.config.listening import places, spoken
from edge.config.loader import load_text

TEXT = """
[listen]
http = ["127.0.0.1:0", "unix:/run/a.sock", "127.0.0.1:0"]
@H2C@
[[listen.https]]
address = "127.0.0.1:0"
certificates = [{ cert = "c.pem", key = "k.pem" }]
[[listen.https]]
address = "[::]:8443"
protocols = ["http/1.1"]
certificates = [{ cert = "c.pem", key = "k.pem" }]
[pools.web]
backends = [{ url = "http://127.0.0.1:9" }]
[[routes]]
pool = "web"
"""


def test_no_two_listeners_have_one_name() -> None:
    found = places(load_text(TEXT.replace("@H2C@", ""), "f").listen)
    names = [place.name for place in found]
    assert names == ["127.0.0.1:0", "unix:/run/a.sock", "127.0.0.1:0#2", "127.0.0.1:0#3", "[::]:8443"]
    assert [place.https is not None for place in found] == [False, False, False, True, True]


def test_what_is_spoken_where() -> None:
    listen = load_text(TEXT.replace("@H2C@", ""), "f").listen
    assert {each["protocols"] for each in spoken(listen, "http")} == {"HTTP/1.1"}
    assert [(each["listener"], each["protocols"]) for each in spoken(listen, "https")] == [
        ("127.0.0.1:0#3", "h2, http/1.1"),
        ("[::]:8443", "http/1.1"),
    ]
    both = load_text(TEXT.replace("@H2C@", "h2c = true"), "f").listen
    assert {each["protocols"] for each in spoken(both, "http")} == {"HTTP/1.1, HTTP/2 from the first byte on"}
