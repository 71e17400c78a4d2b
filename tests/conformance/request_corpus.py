"""Raw requests, RFC 9112 section by section, with what a strict gateway must do: request line, target, Host, fields.

Bodies, pipelining and the smuggling forms are in `request_bodies`; `CASES` holds both. The house rule: ambiguous
framing is refused, never repaired; what is valid reaches the origin byte for byte.
"""

from __future__ import annotations

from corpus import HOST, Answer, Pass, RequestCase, Seen, get, passed, refused, unique
from request_bodies import BODIES

BAD = (400,)
VERSION = (400, 505)
NOT_ALLOWED = Answer(frozenset((405,)))
END = b" HTTP/1.1\r\n" + HOST + b"\r\n"


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + b"\r\n"


def _host(value: bytes) -> bytes:
    return b"GET /x HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def _target(target: bytes, or_refuse: tuple[int, ...] = ()) -> list[RequestCase]:
    name = "target " + target[:40].decode("latin-1")
    return passed("3.2.1", {name: (get(target=target), Seen(target))}, or_refuse)


LINE = [
    *refused("2.2", BAD, {
        "bare LF ends the request line": b"GET /x HTTP/1.1\n" + HOST + b"\r\n",
        "bare LF ends a field line": b"GET /x HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n",
        "bare LF everywhere, then CRLF CRLF": b"GET /x HTTP/1.1\nHost: a.example\n\n\r\n\r\n",
        "bare LF before the empty line": b"GET /x HTTP/1.1\r\nHost: a.example\n\r\n\r\n",
        "bare CR in the request line": b"GET /x\r HTTP/1.1\r\n" + HOST + b"\r\n",
        "bare CR ends the request line": b"GET /x HTTP/1.1\r" + HOST + b"\r\n",
        "CR CR LF ends the request line": b"GET /x HTTP/1.1\r\r\n" + HOST + b"\r\n",
        "bare CR in a value": get(b"X: a\rb"),
        "bare CR before a smuggled name": get(b"X: a\rTransfer-Encoding: chunked"),
        "whitespace line before the fields": b"GET /x HTTP/1.1\r\n \r\n" + HOST + b"\r\n",
        "first field line starts with a space": b"GET /x HTTP/1.1\r\n Host: a.example\r\n\r\n",
        "first field line starts with a tab": b"GET /x HTTP/1.1\r\n\tX: y\r\n" + HOST + b"\r\n",
        "space before the method": _line(b" GET /x HTTP/1.1"),
        "byte order mark before the method": _line(b"\xef\xbb\xbfGET /x HTTP/1.1"),
        "binary noise": b"\x00\x01\x02\xff\xfe\r\n\r\n",
        "a TLS ClientHello": b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03abcdefgh\r\n\r\n",
        "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "an HTTP response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }),
    *refused("2.2", (400, 408), {"bare LF everywhere": b"GET /x HTTP/1.1\nHost: a.example\n\n"}),
    *refused("2.3", (505,), {
        f"version {version}": _line(b"GET /x HTTP/" + version.encode()) for version in ("2.0", "3.0", "9.9")
    }),
    *refused("2.3", VERSION, {
        f"version word {word!r}": _line(b"GET /x " + word) for word in (
            b"HTTP/0.9", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/+1.1", b"HTTP/1.1.1",
            b"HTTP/1,1", b"HTTP/-1.1", b"HTTP/x.y", b"HTTP/1.\xb9", b"http/1.1", b"Http/1.1", b"HTTPS/1.1", b"HTP/1.1",
            b"HTTP/ 1.1", b"HTTP /1.1", b"HTTP//1.1", b"HTTP1.1", b"ICY/1.1", b"HTTP/1.1\x00", b"HTTP/2",
        )
    }),
    *passed("2.3", {"version 1.2 means 1.1 or is refused": (_line(b"GET /x HTTP/1.2"), Seen())}, VERSION),
    *refused("3", VERSION, {
        "HTTP/0.9": b"GET /x\r\n\r\n",
        "HTTP/0.9 with fields": b"GET /x\r\n" + HOST + b"\r\n",
        "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }),
    *refused("3", BAD, {
        "two spaces after the method": _line(b"GET  /x HTTP/1.1"),
        "two spaces before the version": _line(b"GET /x  HTTP/1.1"),
        "tab after the method": _line(b"GET\t/x HTTP/1.1"),
        "tab before the version": _line(b"GET /x\tHTTP/1.1"),
        "space after the version": _line(b"GET /x HTTP/1.1 "),
        "a fourth word": _line(b"GET /x HTTP/1.1 HTTP/1.1"),
        "a space in the target": _line(b"GET /a b HTTP/1.1"),
        "vertical tab between words": _line(b"GET\x0b/x\x0bHTTP/1.1"),
        "no target": _line(b"GET HTTP/1.1"),
        "empty target": _line(b"GET  HTTP/1.1"),
        "only a method": _line(b"GET"),
        "no method": _line(b" /x HTTP/1.1"),
    }),
    *refused("3.1", BAD, {
        f"method {word!r}": _line(word + b" /x HTTP/1.1")
        for word in (b"GE(T", b"G\x00T", b"GET:", b"G,T", b'"GET"', b"GET/", b"G\xc9T", b"{GET}", b"G\x7fT", b"@GET")
    }),
    *passed("3.1", {
        f"method {word}": (get(method=word.encode()), Seen(method=word.encode()))
        for word in ("HEAD", "OPTIONS", "DELETE", "PROPFIND")
    }),
    *passed("3.1", {
        "an unknown method": (get(method=b"BREW"), Seen(method=b"BREW")),
        "a lower-case method is another method": (get(method=b"get"), Seen(method=b"get")),
    }, (400, 405, 501)),
    RequestCase("TRACE", "9110 9.3.8", (get(method=b"TRACE"),), NOT_ALLOWED),
    RequestCase("TRACE with a secret", "9110 9.3.8", (get(b"Cookie: s=1", method=b"TRACE"),), NOT_ALLOWED),
    RequestCase("CONNECT", "3.2.3", (b"CONNECT a.example:443" + END,), NOT_ALLOWED),
    RequestCase("CONNECT to a path", "3.2.3", (b"CONNECT /x" + END,), Answer(frozenset((400, 405)))),
]  # fmt: skip

TARGETS = [
    *refused("3.2", BAD, {
        f"target {word!r}": _line(b"GET " + word + b" HTTP/1.1") for word in (
            b"/x#f", b"/#", b"/x?a#b", b"/caf\xc3\xa9", b"/\xff", b"/a\x00b", b"/a\x01b", b"/a\x0bb", b"/a\x7fb",
            b"x", b"x/y",
            b"*", b"?x", b"a.example:80", b"a.example", b"/x\x1b[2J",
        )
    }),
    *_target(b"/"), *_target(b"/%2e%2e/%2F", BAD), *_target(b"/a%2Fb%2fb", BAD), *_target(b"/%41%7E~"), 
    *_target(b"/a;b=c,d"),
    *_target(b"/?"), *_target(b"/x?"), *_target(b"/x?a=b&a=c&&="), *_target(b"/x??a?b/c"), *_target(b"/x?a+b%20c"),
    *_target(b"/x?u=http://b.example/"), *_target(b"/:@!$&'()*+,;="), *_target(b"/a//b///"), *_target(b"/x%00y", BAD),
    *_target(b"/a/../b", BAD), *_target(b"/../../etc/passwd", BAD), *_target(b"/./x", BAD),
    *_target(b"//b.example/x", BAD),
    *_target(b"/%zz", BAD), *_target(b"/x?p=100%", BAD), *_target(b"/x?a[]=1|2", BAD), *_target(b'/x?q="<>\\^`{}', BAD),
    *_target(b"/" + b"a" * 7900),
    *refused("3", (414,), {
        "a request line of 9 KiB": get(target=b"/" + b"a" * 9216),
        "a query of 20 KiB": get(target=b"/x?" + b"a" * 20480),
    }),
    *refused("3", (400, 414, 431), {"a request line that never ends": b"GET /" + b"a" * 40000}),
    *refused("3.1", (400, 405, 414, 501), {"a method of 9 KiB": get(method=b"M" * 9216)}),
    *passed("3.2.2", {
        "absolute form": (_line(b"GET http://a.example/x HTTP/1.1"), Seen(present=(b"host: a.example\r\n",))),
        "absolute form decides over Host": (
            _line(b"GET http://b.example/x HTTP/1.1"), Seen(present=(b"host: b.example\r\n",), absent=(b"a.example",)),
        ),
        "absolute form without a path": (_line(b"GET http://a.example HTTP/1.1"), Seen(b"/")),
        "absolute form with a query and no path": (_line(b"GET http://a.example?q=1 HTTP/1.1"), Seen(b"/?q=1")),
        "absolute form, scheme in capitals": (_line(b"GET HTTP://a.example/x HTTP/1.1"), Seen()),
        "absolute form with a port": (
            _line(b"GET http://a.example:8080/x HTTP/1.1"), Seen(present=(b"host: a.example:8080\r\n",)),
        ),
        "absolute form keeps its escapes": (
            _line(b"GET http://a.example/%2e%2E?a=%41 HTTP/1.1"), Seen(b"/%2e%2E?a=%41"),
        ),
    }),
    *refused("3.2.2", (400, 421), {
        f"absolute form {word.decode()}": _line(b"GET " + word + b" HTTP/1.1") for word in (
            b"http://", b"http:///x", b"http://u:p@a.example/x", b"http://a.example:port/x",
            b"http://a.example:/../@b/x",
            b"ftp://a.example/x", b"http:/x", b"http:x", b"http://a.example\\x", b"http://[::1/x", b"http://a,b/x",
            b"javascript:alert(1)", b"http://a.example#f",
        )
    }),
    RequestCase("OPTIONS *", "3.2.4", (b"OPTIONS *" + END,),
                Pass((Seen(b"*", b"OPTIONS"),), or_refuse=frozenset((200, 204, 400)))),
]  # fmt: skip

HOSTS = [
    *refused("3.2", BAD, {
        "no Host": b"GET /x HTTP/1.1\r\n\r\n",
        "no Host in absolute form": b"GET http://a.example/x HTTP/1.1\r\n\r\n",
        "two Hosts": get(b"Host: b.example"),
        "the same Host twice": get(b"Host: a.example"),
        "two Hosts in absolute form": b"GET http://a.example/x HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        "Host name with a space before the colon": b"GET /x HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "Host folded": b"GET /x HTTP/1.1\r\nHost:\r\n a.example\r\n\r\n",
        "an invalid Host under a valid absolute form": b"GET http://a.example/x HTTP/1.1\r\nHost: a b\r\n\r\n",
    }),
    *refused("9110 7.2", BAD, {
        f"Host {word!r}": _host(word) for word in (
            b"", b"a b", b"a\tb", b"a/b", b"http://a", b"a@b", b"u:p@a", b"a,b", b"a?b", b"a#b", b"a\\b", b'"a"',
            b"<a>", b"a:b",
            b"a:-1", b"a:80:80", b"a:80a", b"[::1", b"::1", b"[::1]x", b"[]", b"caf\xc3\xa9", b"a\x00b", b"a\x7fb",
            b"a{b}", b":80",
            b"a.example, b.example", b"[::1]:x", b"a^b",
        )
    }),
    *passed("9110 7.2", {
        f"Host {word.decode()}": (_host(word), Seen()) for word in (
            b"A.Example", b"a.example:8080", b"127.0.0.1", b"[::1]", b"[2001:db8::1]:8443", b"a_b.example",
            b"xn--caf-dma.example",
            b"\ta.example \t",
        )
    }),
    *passed("9110 7.2", {
        f"Host {word.decode()} or 400": (_host(word), Seen()) for word in (b"a.example.", b"a.example:", b"a:99999",
        b"%61.example")
    }, BAD),
]  # fmt: skip

NAMES = b'( ) , / ; < = > ? @ [ \\ ] { } " \x01 \x7f \xe9'.split(b" ")
FIELDS = [
    *refused("5.1", BAD, {
        "space before the colon": get(b"X : y"),
        "tab before the colon": get(b"X\t: y"),
        "space before Content-Length's colon": get(b"Content-Length : 0"),
        "space inside a name": get(b"X Y: z"),
        "no colon": get(b"XYZ"),
        "empty name": get(b": y"),
        "only a colon": get(b":"),
        "NUL in a name": get(b"X\x00Y: z"),
    }),
    *refused("5.1", BAD, {f"byte {byte!r} in a name": get(b"X" + byte + b"Y: z") for byte in NAMES}),
    *refused("5.2", BAD, {
        "obs-fold with a space": get(b"X: a", b" b"),
        "obs-fold with a tab": get(b"X: a", b"\tb"),
        "obs-fold of an empty value": get(b"X:", b" b"),
        "obs-fold before the empty line": get(b"X: a", b" "),
        "obs-fold that hides a field": get(b"X: a", b" Transfer-Encoding: chunked"),
    }),
    *refused("9110 5.5", BAD, {
        f"byte {byte!r} in a value": get(b"X: a" + byte + b"b")
        for byte in (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x7f")
    }),
    *passed("9110 5.5", {
        "obs-text in a value": (get(b"X: caf\xc3\xa9 \xff"), Seen(present=(b"caf\xc3\xa9 \xff",))),
        "tab in a value": (get(b"X: a\tb"), Seen(present=(b"a\tb",))),
        "empty value": (get(b"X:"), Seen(present=(b"x:",))),
        "no space after the colon": (get(b"X:y"), Seen()),
        "spaces around a value": (get(b"X: \t y \t "), Seen()),
        "every token byte in a name": (get(b"!#$%&'*+-.^_`|~0aZ: y"), Seen()),
        "the same name twice, in order": (get(b"X: 1", b"X: 2"), Seen()),
        "100 field lines": (get(*[b"X: y"] * 99), Seen()),
        "a line of 8,000 bytes": (get(b"X: " + b"y" * 7997), Seen(present=(b"y" * 7997,))),
    }),
    *refused("5", (431,), {
        "101 field lines": get(*[b"X: y"] * 100),
        "2,000 field lines": get(*[b"X: y"] * 2000),
        "a line of 9 KiB": get(b"X: " + b"y" * 9216),
        "fields of 33 KiB": get(*[b"X: " + b"y" * 4200] * 8),
        "a name of 9 KiB": get(b"x" * 9216 + b": y"),
    }),
    *refused("5", (400, 431), {"a field line that never ends": b"GET /x HTTP/1.1\r\nX: " + b"y" * 50000}),
    *passed("9110 7.6.1", {
        "Connection names a field": (get(b"Connection: X-Secret", b"X-Secret: 1"), Seen(absent=(b"x-secret",))),
        "Connection names two, spaced oddly": (
            get(b"Connection: a ,\tX-B,,", b"A: 1", b"X-B: 2"), Seen(absent=(b"x-b",)),
        ),
        "two Connection lines": (
            get(b"Connection: X-A", b"Connection: X-B", b"X-A: 1", b"X-B: 2"), Seen(absent=(b"x-a", b"x-b")),
        ),
        "Connection names Host": (get(b"Connection: Host"), Seen(present=(b"host: a.example",))),
        "Connection names X-Forwarded-For": (
            get(b"Connection: X-Forwarded-For"), Seen(present=(b"x-forwarded-for: 127.0.0.1",)),
        ),
        "Connection names Via": (get(b"Connection: Via"), Seen(present=(b"via: ",))),
        "Proxy-Connection and Keep-Alive end here": (
            get(b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5"), Seen(absent=(b"proxy-connection",
            b"timeout=5")),
        ),
        "TE ends here": (get(b"TE: gzip", b"Connection: TE"), Seen(absent=(b"gzip",))),
        "h2c is never offered on": (
            get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
            Seen(absent=(b"h2c", b"http2-settings")),
        ),
        "Upgrade without Connection": (get(b"Upgrade: websocket"), Seen(absent=(b"upgrade",))),
    }),
    *passed("9110 7.6.3", {
        "a forged X-Forwarded-For": (get(b"X-Forwarded-For: 6.6.6.6"), Seen(absent=(b"6.6.6.6",))),
        "a forged Forwarded": (get(b"Forwarded: for=6.6.6.6"), Seen(absent=(b"6.6.6.6",))),
        "a forged X-Forwarded-Host": (get(b"X-Forwarded-Host: evil.example"), Seen(absent=(b"evil.example",))),
        "X_Forwarded_For with underscores": (get(b"X_Forwarded_For: 6.6.6.6"), Seen(absent=(b"6.6.6.6",))),
        "X_Forwarded-Host, half an underscore": (
            get(b"X_Forwarded-Host: evil.example"), Seen(absent=(b"evil.example",)),
        ),
        "Content_Length with an underscore": (get(b"Content_Length: 5"), Seen(absent=(b"content_length",))),
        "Transfer_Encoding with an underscore": (
            get(b"Transfer_Encoding: chunked"), Seen(absent=(b"transfer_encoding",)),
        ),
    }),
]  # fmt: skip

CASES = unique([*LINE, *TARGETS, *HOSTS, *FIELDS, *BODIES])
