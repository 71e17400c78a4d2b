"""Raw origin responses, RFC 9112 section by section, with what a strict gateway must make of them: heads and framing.

Chunked bodies, ends of connections and the reuse of an origin's connection are in `response_bodies`; `CASES` holds
both. The house rule: what is not valid is 502, never repaired; what fails after the head is an aborted connection.
"""

from __future__ import annotations

from corpus import Deliver, GatewayError, ResponseCase, Reuse, unique
from kit.origin import Action, Step
from response_bodies import BODIES

OK = b"HTTP/1.1 200 OK\r\n"
CL2 = b"Content-Length: 2\r\n"
BODY = CL2 + b"\r\nok"
GOOD = Deliver(body=b"ok")
ERROR = GatewayError()


def _status(line: bytes) -> bytes:
    return line + b"\r\n" + BODY


def _with(*lines: bytes) -> bytes:
    return OK + b"".join(line + b"\r\n" for line in lines) + BODY


def invalid(section: str, raw: dict[str, bytes], *then: Action) -> list[ResponseCase]:
    """One case for each named answer that must become 502; after it the origin goes on with `then`."""
    return [ResponseCase(name, section, (data, *then), ERROR) for name, data in raw.items()]


def valid(section: str, raw: dict[str, bytes], expect: Deliver = GOOD) -> list[ResponseCase]:
    """One case for each named answer that must be delivered."""
    return [ResponseCase(name, section, (data,), expect) for name, data in raw.items()]


def _coded(status: int, fields: bytes = b"", **how: bytes) -> ResponseCase:
    raw = b"HTTP/1.1 %d Word\r\n%s" % (status, fields) + BODY
    return ResponseCase(f"status {status}", "9110 15", (raw,), Deliver(status, b"ok"))


STATUS = [
    *valid("4", {
        "a plain answer": OK + BODY,
        "no reason": _status(b"HTTP/1.1 200 "),
        "a long reason": _status(b"HTTP/1.1 200 " + b"very " * 100 + b"well"),
        "obs-text in the reason": _status(b"HTTP/1.1 200 caf\xc3\xa9"),
        "a tab in the reason": _status(b"HTTP/1.1 200 a\tb"),
    }),
    *valid("4", {
        "no space after the status": _status(b"HTTP/1.1 200"),
        "version 1.2": _status(b"HTTP/1.2 200 OK"),
    }, Deliver(body=b"ok", reuse=Reuse.ANY, or_error=True)),
    *(_coded(status) for status in (201, 202, 203, 226, 300, 301, 302, 307, 308, 400, 403, 404, 405, 410, 418, 422,
            429, 451)),
    *(_coded(status) for status in (500, 501, 502, 503, 504, 507, 511, 599)),
    _coded(401, b"WWW-Authenticate: Basic\r\n"), _coded(407, b"Proxy-Authenticate: Basic\r\n"), _coded(206,
    b"Content-Range: bytes 0-1/9\r\n"),
    _coded(416, b"Content-Range: bytes */9\r\n"), _coded(426, b"Upgrade: foo\r\nConnection: upgrade\r\n"),
    *invalid("4", {
        f"status line {line!r}": _status(line) for line in (
            b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 abc OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 000 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 +200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 2 0 OK", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK",
            b"HTTP/3.0 200 OK",
            b"HTTP/1.10 200 OK", b"HTTP/1. 200 OK", b"HTTP/01.1 200 OK", b"HTTP/1,1 200 OK", b"http/1.1 200 OK",
            b"HTTPS/1.1 200 OK",
            b"ICY 200 OK", b"HTTP 200 OK", b"RTSP/1.0 200 OK", b"200 OK", b"GET / HTTP/1.1", b"HTTP/1.1 200 a\x00b",
            b"HTTP/1.1 200 a\x01b",
            b"HTTP/1.1 200 a\x7fb", b"HTTP/1.1 200 a\rb", b"\x00HTTP/1.1 200 OK", b"HTTP/1.1 \xb2\xb0\xb0 OK",
            b"HTTP/1.1 0x8 OK",
            b"HTTP/1.1 200.1 OK",
        )
    }),
    *invalid("2.2", {
        "an HTTP/0.9 answer": b"<html>hello</html>",
        "noise": b"\x00\x01\x02\xff",
        "an empty line before the status line": b"\r\n" + OK + BODY,
        "a request instead of an answer": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    }, Step.CLOSE),
    *invalid("2.2", {
        "LF ends the status line": b"HTTP/1.1 200 OK\n" + BODY,
        "LF ends a field line": OK + b"X: y\n" + BODY,
        "LF before the empty line": OK + b"Content-Length: 2\n\r\n\r\nok",
        "LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "CR ends the status line": b"HTTP/1.1 200 OK\r" + BODY,
        "CR CR LF ends the status line": b"HTTP/1.1 200 OK\r\r\n" + BODY,
    }, Step.CLOSE),
]  # fmt: skip

NAMES = b'( ) , / ; < = > ? @ [ \\ ] { } " \x01 \x7f \xe9'.split(b" ")
FIELDS = [
    *invalid("5.1", {
        "a space before the colon": _with(b"X : y"),
        "a tab before the colon": _with(b"X\t: y"),
        "a space before Content-Length's colon": OK + b"Content-Length : 2\r\n\r\nok",
        "a space before Transfer-Encoding's colon": OK + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "a space inside a name": _with(b"X Y: z"),
        "no colon": _with(b"XYZ"),
        "an empty name": _with(b": y"),
        "NUL in a name": _with(b"X\x00: y"),
        "the first field line starts with a space": OK + b" X: y\r\n" + BODY,
    }),
    *invalid("5.1", {f"byte {byte!r} in a name": _with(b"X" + byte + b"Y: z") for byte in NAMES}),
    *invalid("5.2", {
        "obs-fold with a space": _with(b"X: a", b" b"),
        "obs-fold with a tab": _with(b"X: a", b"\tb"),
        "obs-fold of an empty value": _with(b"X:", b" b"),
        "obs-fold that hides a framing": OK + b"X: a\r\n Transfer-Encoding: chunked\r\n" + BODY,
        "Content-Length folded": OK + b"Content-Length:\r\n 2\r\n\r\nok",
    }),
    *invalid("9110 5.5", {
        f"byte {byte!r} in a value": _with(b"X: a" + byte + b"b")
        for byte in (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\r", b"\x1b", b"\x7f")
    }),
    *invalid("9110 5.5", {"CR and a smuggled line in a value": _with(b"X: a\rSet-Cookie: evil=1")}),
    *valid("9110 5.5", {
        "no space after the colon": _with(b"X:y"),
        "spaces around a value": _with(b"X: \t y \t "),
        "an empty value": _with(b"X:"),
        "every token byte in a name": _with(b"!#$%&'*+-.^_`|~0aZ: y"),
        "190 field lines": _with(*[b"X: y"] * 189),
        "a value of 40 KiB": _with(b"X: " + b"y" * 40960),
    }),
    ResponseCase("obs-text in a value", "9110 5.5", (_with(b"X: caf\xc3\xa9 \xff"),), Deliver(body=b"ok",
    present=(b"caf\xc3\xa9 \xff",))),
    ResponseCase("a tab in a value", "9110 5.5", (_with(b"X: a\tb"),), Deliver(body=b"ok", present=(b"a\tb",))),
    ResponseCase("two Set-Cookies stay two lines", "9110 5.3", (_with(b"Set-Cookie: a=1", b"Set-Cookie: b=2"),),
                 Deliver(body=b"ok", present=(b"set-cookie: a=1\r\n", b"set-cookie: b=2\r\n"))),
    *invalid("5", {
        "210 field lines": _with(*[b"X: y"] * 209),
        "5,000 field lines": _with(*[b"X: y"] * 4999),
        "a head of 70 KiB": _with(*[b"X: " + b"y" * 7000] * 10),
        "a line of 70 KiB": _with(b"X: " + b"y" * 71680),
        "a head that never ends": OK + b"X: " + b"y" * 200000,
        "a status line that never ends": b"HTTP/1.1 200 " + b"y" * 200000,
    }),
]  # fmt: skip

CROSSING = [
    ResponseCase("Connection names a field", "9110 7.6.1", (_with(b"Connection: X-Secret", b"X-Secret: 1"),),
                 Deliver(body=b"ok", absent=(b"x-secret",))),
    ResponseCase("Connection names two on two lines", "9110 7.6.1", (_with(b"Connection: X-A", b"Connection: X-B",
    b"X-A: 1", b"X-B: 1"),),
                 Deliver(body=b"ok", absent=(b"x-a", b"x-b"))),
    ResponseCase("Connection names Content-Length", "9110 7.6.1", (_with(b"Connection: Content-Length"),), GOOD),
    ResponseCase("Keep-Alive and Proxy-Connection end here", "9110 7.6.1", (_with(b"Keep-Alive: timeout=50",
    b"Proxy-Connection: keep-alive"),),
                 Deliver(body=b"ok", absent=(b"timeout=50", b"proxy-connection"))),
    ResponseCase("Upgrade on a 200 ends here", "9110 7.8", (_with(b"Connection: Upgrade",
    b"Upgrade: h2c"),), Deliver(body=b"ok", absent=(b"h2c",))),
    ResponseCase("Via is added", "9110 7.6.3", (_with(b"Via: 1.1 inner"),), Deliver(body=b"ok",
    present=(b"1.1 inner",))),
    ResponseCase("Date is made when missing", "9110 6.6.1", (_with(),), Deliver(body=b"ok", present=(b"\r\ndate: ",))),
    ResponseCase("Date is kept", "9110 6.6.1", (_with(b"Date: Sun, 06 Nov 1994 08:49:37 GMT"),),
                 Deliver(body=b"ok", present=(b"\r\ndate: sun, 06 nov 1994 08:49:37 gmt",))),
    ResponseCase("gzip passes unchanged", "9110 8.4", (_with(b"Content-Encoding: gzip"),), Deliver(body=b"ok",
    present=(b"gzip",))),
    ResponseCase("br that is no br passes unchanged", "9110 8.4", (_with(b"Content-Encoding: br"),),
            Deliver(body=b"ok", present=(b"br",))),
    ResponseCase("Location passes unchanged", "9110 10.2.2",
            (b"HTTP/1.1 302 Found\r\nLocation: http://b.example/%2e?q\r\n" + BODY,),
                 Deliver(302, b"ok", present=(b"location: http://b.example/%2e?q\r\n",))),
]  # fmt: skip

INTERIM_103 = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
INTERIM = [
    ResponseCase("103 before a 200", "9110 15.2", (INTERIM_103 + OK + BODY,), Deliver(body=b"ok", interim=(103,))),
    ResponseCase("three 103s before a 200", "9110 15.2", (INTERIM_103 * 3 + OK + BODY,),
            Deliver(body=b"ok", interim=(103, 103, 103))),
    ResponseCase("102 before a 200", "9110 15.2", (b"HTTP/1.1 102 Processing\r\n\r\n" + OK + BODY,),
            Deliver(body=b"ok", interim=(102,))),
    ResponseCase("103 cut at an odd byte", "9110 15.2", (INTERIM_103[:30], INTERIM_103[30:] + OK[:5], OK[5:] + BODY),
            Deliver(body=b"ok", interim=(103,))),
    ResponseCase("103 before a 404", "9110 15.2", (INTERIM_103 + b"HTTP/1.1 404 No\r\n" + BODY,), Deliver(404,
    b"ok", interim=(103,))),
    *invalid("9110 15.2", {
        "101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
        "101 and then a 200": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + BODY,
        "an invalid line in a 103": INTERIM_103.replace(b"Link", b"Li nk") + OK + BODY,
        "103, then noise": INTERIM_103 + b"noise\r\n\r\n",
        "103 in LF": INTERIM_103.replace(b"\r\n", b"\n") + OK + BODY,
        "40 interims": INTERIM_103 * 40 + OK + BODY,
        "103 with a huge head": INTERIM_103[:-2] + b"X: " + b"y" * 71680 + b"\r\n\r\n" + OK + BODY,
    }),
    *invalid("9110 15.2", {"103, then the end": INTERIM_103, "100, then the end": b"HTTP/1.1 100 Continue\r\n\r\n"},
            Step.CLOSE),
]  # fmt: skip

CASES = unique([*STATUS, *FIELDS, *CROSSING, *INTERIM, *BODIES])
