"""Raw requests with bodies: Content-Length, Transfer-Encoding, both, chunks, trailers, connections, smuggling forms.

RFC 9112 6 to 11. One rule: whatever is not framed in exactly one valid way is refused and the connection closed; an
origin may have got the head of a body that turned out to be broken, never a whole request.
"""

from __future__ import annotations

from corpus import HOST, Pass, Refuse, RequestCase, Seen, get, passed, post, refused
from kit.message import Framing

BAD = (400,)
CODING = (400, 501)
CL5 = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
HELLO = Seen(method=b"POST", body=b"hello")


def _length(value: bytes) -> bytes:
    return post(b"Content-Length: " + value, body=b"hello")


def _coding(line: bytes) -> bytes:
    return post(line, body=b"5\r\nhello\r\n" + LAST)


def _chunks(body: bytes) -> bytes:
    return post(TE, body=body)


LENGTHS = [
    *refused("6.2", BAD, {
        f"Content-Length {word!r}": _length(word) for word in (
            b"", b"+5", b"-5", b"-0", b"0x5", b"5 5", b"5a", b"a5", b"5.0", b"1e1", b"5,", b",5", b'"5"', b"5;",
            b"\xef\xbc\x95", b"5\x00",
            b"5\x0b", b"\x0c5", b"'5'", b"five", b"5_0", b"5, 5", b"5, 6", b"5,5",
        )
    }),
    *refused("6.3", BAD, {
        "two equal Content-Lengths": post(CL5, CL5, body=b"hello"),
        "two different Content-Lengths": post(CL5, b"Content-Length: 6", body=b"hello!"),
        "two Content-Lengths, odd case": post(CL5, b"CONTENT-length: 0", body=b"hello"),
        "two Content-Lengths, one empty": post(CL5, b"Content-Length:", body=b"hello"),
        "Content-Length folded": post(b"Content-Length:", b" 5", body=b"hello"),
        "Content-Length with a space before the colon": post(b"Content-Length : 5", body=b"hello"),
    }),
    *refused("6.2", (400, 413), {
        "Content-Length of 2^63": _length(b"9223372036854775808"),
        "Content-Length of 2^64 + 5": _length(b"18446744073709551621"),
        "Content-Length of 40 digits": _length(b"9" * 40),
    }),
    *refused("6.2", (413,), {"Content-Length over the limit": post(b"Content-Length: 65537", body=b"a" * 100)}),
    *refused("8", BAD, {"body cut by the client": post(b"Content-Length: 50", body=b"hello")},
             partial=True, silent=True, half_close=True),
    *passed("6.2", {
        "Content-Length 5": (_length(b"5"), HELLO),
        "Content-Length with spaces around": (_length(b" \t5 \t"), HELLO),
        "Content-Length 0 on a GET": (get(b"Content-Length: 0"), Seen()),
        "Content-Length 0 on a POST": (post(b"Content-Length: 0"), Seen(method=b"POST")),
        "POST without a body": (post(), Seen(method=b"POST")),
        "a body on DELETE": (get(CL5, method=b"DELETE") + b"hello", Seen(method=b"DELETE", body=b"hello")),
        "a body of exactly the limit": (
            post(b"Content-Length: 65536", body=b"a" * 65536), Seen(method=b"POST", body=b"a" * 65536),
        ),
        "every byte in a body": (
            post(b"Content-Length: 256", body=bytes(range(256))), Seen(method=b"POST", body=bytes(range(256))),
        ),
        "Connection names Content-Length": (post(b"Connection: Content-Length", CL5, body=b"hello"), HELLO),
        "Expect 100-continue with its body at once": (post(b"Expect: 100-continue", CL5, body=b"hello"), HELLO),
    }),
    *passed("6.2", {
        "Content-Length with a leading zero": (_length(b"05"), HELLO),
        "a body on GET": (get(CL5) + b"hello", Seen(body=b"hello")),
        "a body on HEAD": (get(CL5, method=b"HEAD") + b"hello", Seen(method=b"HEAD", body=b"hello")),
        "a body on OPTIONS": (get(CL5, method=b"OPTIONS") + b"hello", Seen(method=b"OPTIONS", body=b"hello")),
    }, BAD),
    RequestCase("a body in two pieces", "6.2", (post(CL5, body=b"he"), b"llo"), Pass((HELLO,))),
    RequestCase("a head in many pieces", "2.2", tuple(bytes([each]) for each in get()), Pass((Seen(),))),
]  # fmt: skip

CODINGS = [
    *refused("6.1", CODING, {
        f"line {line!r}": _coding(line) for line in (
            b"Transfer-Encoding:", b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: identity", b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: chunk",
            b"Transfer-Encoding: cow",
            b"Transfer-Encoding: chunked;q=1", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: 'chunked'",
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: chunked,", b"Transfer-Encoding: chunked chunked",
            b"Transfer-Encoding: chunked\xa0", b"Transfer-Encoding: x",
            b"Transfer-Encoding: trailers, chunked", b"Transfer-Encoding: chun\xc2\xadked",
        )
    }),
    *refused("6.1", BAD, {
        "Transfer-Encoding with a space before the colon": _coding(b"Transfer-Encoding : chunked"),
        "Transfer-Encoding with a tab before the colon": _coding(b"Transfer-Encoding\t: chunked"),
        "Transfer-Encoding with a vertical tab": _coding(b"Transfer-Encoding:\x0bchunked"),
        "Transfer-Encoding with a NUL": _coding(b"Transfer-Encoding: chunked\x00"),
        "Transfer-Encoding folded": _coding(b"Transfer-Encoding:\r\n chunked"),
        "Transfer-Encoding behind a bare LF": _coding(b"X: y\nTransfer-Encoding: chunked"),
        "Transfer-Encoding after a space": _coding(b" Transfer-Encoding: chunked"),
        "Transfer-Encoding in HTTP/1.0": _coding(TE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        "Transfer-Encoding in HTTP/1.0, kept": _coding(b"Connection: keep-alive\r\n" + TE).replace(b"HTTP/1.1",
        b"HTTP/1.0"),
    }),
    *refused("6.1", CODING, {
        "two Transfer-Encodings": _coding(TE + b"\r\n" + TE),
        "chunked, then identity": _coding(TE + b"\r\nTransfer-Encoding: identity"),
        "identity, then chunked": _coding(b"Transfer-Encoding: identity\r\n" + TE),
        "chunked, then an unknown one": _coding(TE + b"\r\nTransfer-encoding: cow"),
        "gzip, then chunked on two lines": _coding(b"Transfer-Encoding: gzip\r\n" + TE),
    }),
    *refused("6.3", BAD, {
        "CL.TE": post(b"Content-Length: 6", TE, body=b"0\r\n\r\nG"),
        "TE.CL": post(TE, b"Content-Length: 4", body=b"5c\r\nGPOST / HTTP/1.1\r\n\r\n" + LAST),
        "CL and TE that agree": post(b"Content-Length: 15", TE, body=b"5\r\nhello\r\n" + LAST),
        "CL 0 and TE": post(b"Content-Length: 0", TE, body=LAST),
        "an invalid CL and TE": post(b"Content-Length: x", TE, body=LAST),
        "CL and an empty TE": post(CL5, b"Transfer-Encoding:", body=b"hello"),
        "CL, TE, CL": post(CL5, TE, CL5, body=LAST),
        "CL and TE on a GET": get(b"Content-Length: 0", TE) + LAST,
        "CL and TE, Connection names CL": post(b"Connection: Content-Length", CL5, TE, body=LAST),
        "CL and TE, Connection names TE": post(b"Connection: Transfer-Encoding", CL5, TE, body=LAST),
        "TE.CL with a request in the chunk": post(b"Content-Length: 3", TE, body=b"37\r\n" + SMUGGLED + b"\r\n" + LAST),
    }),
    *refused("6.3", CODING, {
        f"CL and TE {word.decode()}": post(CL5, b"Transfer-Encoding: " + word, body=b"hello")
        for word in (b"identity", b"gzip", b"xchunked", b"chunked, identity")
    }),
    *passed("6.1", {
        "chunked": (_coding(TE), HELLO),
        "chunked in capitals": (_coding(b"TRANSFER-ENCODING: CHUNKED"), HELLO),
        "chunked with spaces around": (_coding(b"Transfer-Encoding: \t chunked \t"), HELLO),
        "Connection names Transfer-Encoding": (_coding(b"Connection: Transfer-Encoding\r\n" + TE), HELLO),
        "chunked on PUT": (
            get(TE, method=b"PUT") + b"5\r\nhello\r\n" + LAST, Seen(method=b"PUT",
            body=b"hello", framing=Framing.CHUNKED),
        ),
    }),
]  # fmt: skip

CHUNKS = [
    *passed("7.1", {
        "two chunks": (_chunks(b"2\r\nhe\r\n3\r\nllo\r\n" + LAST), HELLO),
        "an empty chunked body": (_chunks(LAST), Seen(method=b"POST")),
        "a size with leading zeros": (_chunks(b"0005\r\nhello\r\n" + LAST), HELLO),
        "a last chunk of many zeros": (_chunks(b"5\r\nhello\r\n0000\r\n\r\n"), HELLO),
        "a size in capitals": (_chunks(b"A\r\n" + b"a" * 10 + b"\r\n" + LAST), Seen(method=b"POST", body=b"a" * 10)),
        "chunk data that looks like chunks": (
            _chunks(b"a\r\n0\r\n\r\nGET /\r\n" + LAST), Seen(method=b"POST", body=b"0\r\n\r\nGET /"),
        ),
        "CRLF as chunk data": (_chunks(b"2\r\n\r\n\r\n" + LAST), Seen(method=b"POST", body=b"\r\n")),
    }),
    *passed("7.1.1", {
        "an extension is dropped": (_chunks(b"5;a=b\r\nhello\r\n" + LAST), HELLO),
        "a quoted extension": (_chunks(b'5;a="b;c";d\r\nhello\r\n' + LAST), HELLO),
        "an extension on the last chunk": (_chunks(b"5\r\nhello\r\n0;x\r\n\r\n"), HELLO),
    }),
    *passed("7.1.2", {
        "trailers": (_chunks(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n"), HELLO),
        "a trailer that names Content-Length": (
            _chunks(b"5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n"), Seen(method=b"POST", body=b"hello",
            absent=(b"content-length",)),
        ),
        "a trailer that names Host": (
            _chunks(b"5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n"), Seen(method=b"POST", body=b"hello",
            absent=(b"evil",)),
        ),
        "a trailer that names Transfer-Encoding": (
            _chunks(b"5\r\nhello\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n"), HELLO,
        ),
        "a trailer that names X-Forwarded-For": (
            _chunks(b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"), Seen(method=b"POST", body=b"hello",
            absent=(b"6.6.6.6",)),
        ),
    }, BAD),
    *refused("7.1", BAD, {
        f"chunk-size line {line[:24]!r}": _chunks(line + b"hello\r\n" + LAST) for line in (
            b"\r\n", b"g\r\n", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"5\t\r\n", b"5\n", b"5\r",
            b"5\r\r\n", b"\n5\r\n", b"5.0\r\n",
            b"5,5\r\n", b"5 5\r\n", b"\x005\r\n", b"5\x00\r\n", b"\xef\xbc\x95\r\n", b"5h\r\n",
            b"00000000000000005\r\n", b"_5\r\n", b"5_\r\n",
        )
    }, partial=True),
    *refused("7.1", (400, 413), {
        "a chunk of 2^64 - 1": _chunks(b"FFFFFFFFFFFFFFFF\r\nhello\r\n" + LAST),
        "a chunk of 2^64 + 5": _chunks(b"10000000000000005\r\nhello\r\n" + LAST),
        "a chunk of 2^63": _chunks(b"8000000000000000\r\nhello\r\n" + LAST),
    }, partial=True),
    *refused("7.1", (413,), {
        "chunks over the limit": _chunks(b"8000\r\n" + b"a" * 32768 + b"\r\n9000\r\n" + b"a" * 36864 + b"\r\n" + LAST),
    }, partial=True),
    *refused("7.1", BAD, {
        "chunk data longer than its size": _chunks(b"3\r\nhello\r\n" + LAST),
        "chunk data without its CRLF": _chunks(b"5\r\nhello" + LAST),
        "chunk data that ends in LF": _chunks(b"5\r\nhello\n" + LAST),
        "chunk data that ends in CR": _chunks(b"5\r\nhello\r" + LAST),
        "chunk data that ends in two bytes that are no CRLF": _chunks(b"5\r\nhelloXX" + LAST),
        "the last chunk ends in LF": _chunks(b"5\r\nhello\r\n0\n\r\n"),
        "the body ends in LF": _chunks(b"5\r\nhello\r\n0\r\n\n"),
        "the last chunk ends in LF LF": _chunks(b"5\r\nhello\r\n0\n\n"),
    }, partial=True),
    *refused("7.1.1", BAD, {
        "an extension with LF (TERM.EXT)": _chunks(b"5;\nhello\r\n" + LAST),
        "an extension with CR": _chunks(b"5;a\rb\r\nhello\r\n" + LAST),
        "an extension with NUL": _chunks(b"5;a\x00b\r\nhello\r\n" + LAST),
        "an extension without its semicolon": _chunks(b"5 a=b\r\nhello\r\n" + LAST),
        "an open quote over the line's end": _chunks(b'5;a="\r\nhello\r\n' + LAST.replace(b"\r\n", b"\n")),
    }, partial=True),
    *refused("7.1.1", (400, 413, 431), {
                "an extension of 5 KiB": _chunks(b"5;" + b"a" * 5120 + b"\r\nhello\r\n" + LAST)}, partial=True),
    *refused("7.1.2", BAD, {
        "a trailer without a colon": _chunks(b"0\r\nXYZ\r\n\r\n"),
        "a trailer with a space before the colon": _chunks(b"0\r\nX : y\r\n\r\n"),
        "a trailer with obs-fold": _chunks(b"0\r\nX: y\r\n z\r\n\r\n"),
        "a trailer with LF": _chunks(b"0\r\nX: y\nZ: w\r\n\r\n"),
        "a trailer with NUL": _chunks(b"0\r\nX: \x00\r\n\r\n"),
        "a trailer with an empty name": _chunks(b"0\r\n: y\r\n\r\n"),
    }, partial=True),
    *refused("7.1.2", (400, 413, 431), {
        "trailers of 9 KiB": _chunks(b"0\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 9 + b"\r\n"),
        "a trailer that never ends": _chunks(b"0\r\nX: " + b"y" * 20000),
    }, partial=True),
    *refused("8", BAD, {
        "chunks cut inside data": _chunks(b"5\r\nhe"),
        "chunks cut before the last one": _chunks(b"5\r\nhello\r\n"),
        "chunks cut inside a size": _chunks(b"5\r\nhello\r\n1"),
        "chunks cut inside the trailers": _chunks(b"5\r\nhello\r\n0\r\nX: y\r\n"),
    }, partial=True, silent=True, half_close=True),
    RequestCase("trailers reach the origin as trailers", "7.1.2", (_chunks(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),),
                Pass((Seen(method=b"POST", body=b"hello", absent=(b"x-sum",), trailers=((b"x-sum", b"1"),)),))),
]  # fmt: skip

ONE, TWO = Seen(b"/1"), Seen(b"/2")
FIRST, SECOND = get(target=b"/1"), get(target=b"/2")
AFTER_ONE = Refuse(frozenset(BAD), before=(ONE,))
OLD = b"GET /1 HTTP/1.0\r\nHost: a.example\r\n"
CONNECTIONS = [
    RequestCase("two requests at once", "9.3.2", (FIRST + SECOND,), Pass((ONE, TWO))),
    RequestCase("five requests at once", "9.3.2", (FIRST + SECOND + FIRST + SECOND + FIRST,),
                Pass((ONE, TWO, ONE, TWO, ONE))),
    RequestCase("two requests cut at an odd byte", "9.3.2", (FIRST + SECOND[:9], SECOND[9:]), Pass((ONE, TWO))),
    RequestCase("a body, then a request", "9.3.2", (_length(b"5") + SECOND,), Pass((HELLO, TWO))),
    RequestCase("chunks, then a request", "9.3.2", (_coding(TE) + SECOND,), Pass((HELLO, TWO))),
    RequestCase("HEAD, then GET", "9.3.2", (get(target=b"/1", method=b"HEAD") + SECOND,),
                Pass((Seen(b"/1", b"HEAD"), TWO))),
    RequestCase("a request, then noise", "9.3.2", (FIRST + b"noise\r\n\r\n",), AFTER_ONE),
    RequestCase("a request, then one with LF", "9.3.2", (FIRST + SECOND.replace(b"\r\n", b"\n", 1),), AFTER_ONE),
    RequestCase("a request, then CL and TE", "9.3.2", (FIRST + post(CL5, TE, body=LAST),), AFTER_ONE),
    RequestCase("a request, then one without Host", "9.3.2", (FIRST + b"GET /2 HTTP/1.1\r\n\r\n",), AFTER_ONE),
    RequestCase("a body one byte too long", "11.2", (_length(b"5") + b"X" + SECOND,),
                Pass((HELLO, Seen(b"/2", b"XGET")), or_refuse=frozenset((400, 405, 501)))),
    RequestCase("GET with CL 0, then a request", "11.2", (get(b"Content-Length: 0", target=b"/1") + SECOND,),
                Pass((ONE, TWO))),
    RequestCase("a refused request's rest is never read as one", "11.2", (post(CL5, TE, body=SMUGGLED),),
                Refuse(frozenset(BAD))),
    RequestCase("a bad chunk's rest is never read as a request", "11.2",
                (_chunks(b"5\r\nhelloX\r\n" + LAST + SMUGGLED),), Refuse(frozenset(BAD), partial=True)),
    RequestCase("an over-long body's rest is never read as a request", "11.2",
                (post(b"Content-Length: 99999999", body=SMUGGLED),), Refuse(frozenset((413,)))),
    RequestCase("Connection: close ends it", "9.6", (get(b"Connection: close", target=b"/1") + SECOND,),
                Pass((ONE,), closes=True)),
    RequestCase("Connection: CLOSE among others", "9.6", (get(b"Connection: X, CLOSE", target=b"/1") + SECOND,),
                Pass((ONE,), closes=True)),
    RequestCase("HTTP/1.0 ends it", "9.3", (OLD + b"\r\n",), Pass((ONE,), closes=True)),
    RequestCase("HTTP/1.0 keep-alive keeps or ends it", "9.3", (OLD + b"Connection: keep-alive\r\n\r\n",),
                Pass((ONE,), closes=None)),
    RequestCase("HTTP/1.0 without Host", "3.2", (b"GET /1 HTTP/1.0\r\n\r\n",),
                Pass((ONE,), closes=True, or_refuse=frozenset(BAD))),
    RequestCase("an empty line before a request", "2.2", (b"\r\n" + FIRST,), Pass((ONE,), or_refuse=frozenset(BAD))),
    RequestCase("an empty line between requests", "2.2", (_length(b"5") + b"\r\n" + SECOND,),
                Pass((HELLO, TWO), or_refuse=frozenset(BAD))),
    RequestCase("a head cut by the client", "8", (b"GET /x HTTP/1.1\r\nHost: a.ex",),
                Refuse(frozenset((400, 408)), silent=True), half_close=True),
    RequestCase("a connection without a byte", "8", (b"",),
                Refuse(frozenset((400, 408)), silent=True), half_close=True),
]  # fmt: skip

BODIES = [*LENGTHS, *CODINGS, *CHUNKS, *CONNECTIONS]
