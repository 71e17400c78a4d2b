"""Raw origin responses: Content-Length, Transfer-Encoding, both, chunks, bodiless ones, ends, reuse of the connection.

RFC 9112 6 to 9. One rule: what is wrong before the head has gone out is 502 or 504; what is wrong after it is an
aborted connection; and a connection that is not exactly clean is never used again.
"""

from __future__ import annotations

from corpus import Abort, Deliver, GatewayError, ResponseCase, Reuse
from kit.origin import Action, Pause, Step

OK = b"HTTP/1.1 200 OK\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"
SEEN, DONE = Pause("head"), Pause("done")
ERROR, SLOW, CUT = GatewayError(), GatewayError(frozenset((504,))), Abort()
CHUNKED = OK + TE + b"\r\n"
FIRST = CHUNKED + b"2\r\nok\r\n"
HELLO = Deliver(body=b"hello")
RETIRED = Deliver(body=b"hello", reuse=Reuse.NO)


def _case(
    section: str, expect: GatewayError | Abort | Deliver, named: dict[str, Action | tuple[Action, ...]]
) -> list[ResponseCase]:
    scripts = {name: script if isinstance(script, tuple) else (script,) for name, script in named.items()}
    return [ResponseCase(name, section, script, expect) for name, script in scripts.items()]


def _length(value: bytes) -> bytes:
    return OK + b"Content-Length: " + value + b"\r\n\r\nhello"


def _coding(line: bytes) -> bytes:
    return OK + line + b"\r\n\r\n5\r\nhello\r\n" + LAST


LENGTHS = [
    *_case("6.2", HELLO, {
        "Content-Length 5": _length(b"5"),
        "Content-Length with spaces around": _length(b" \t5 "),
        "a body in pieces": (OK + b"Content-Length: 5\r\n\r\nhe", SEEN, b"l", b"lo"),
        "a head in pieces": (OK[:7], OK[7:] + b"Content-Le", b"ngth: 5\r\n\r", b"\nhello"),
    }),
    *_case("6.2", Deliver(), {"Content-Length 0": OK + b"Content-Length: 0\r\n\r\n"}),
    *_case("6.2", Deliver(body=b"a" * 300000),
            {"a body of 300,000 bytes": OK + b"Content-Length: 300000\r\n\r\n" + b"a" * 300000}),
    *_case("6.2", Deliver(body=b"hello", reuse=Reuse.ANY, or_error=True),
            {"Content-Length with a leading zero": _length(b"05")}),
    *_case("6.3", ERROR, {
        f"Content-Length {word!r}": _length(word) for word in (
            b"", b"+5", b"-5", b"0x5", b"5 5", b"5a", b"a", b"5.0", b"1e1", b"5,", b",5", b'"5"', b"5;", b"5, 5",
            b"5, 6", b"5,5", b"\xef\xbc\x95",
            b"5\x00", b"5\x0b", b"18446744073709551621", b"9" * 40, b"five", b"5_0",
        )
    }),
    *_case("6.3", ERROR, {
        "two equal Content-Lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "two different Content-Lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "two Content-Lengths, one empty": OK + b"Content-Length: 5\r\nContent-Length:\r\n\r\nhello",
        "CL and TE": OK + b"Content-Length: 5\r\n" + TE + b"\r\n5\r\nhello\r\n" + LAST,
        "TE and CL": OK + TE + b"Content-Length: 15\r\n\r\n5\r\nhello\r\n" + LAST,
        "CL 0 and TE": OK + b"Content-Length: 0\r\n" + TE + b"\r\n" + LAST,
        "CL and an unknown TE": OK + b"Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\nhello",
        "CL and an empty TE": OK + b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello",
        "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n5\r\nhello\r\n" + LAST,
        "TE in HTTP/1.0, kept": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TE + b"\r\n5\r\nhello\r\n" + LAST,
    }),
    *_case("6.1", ERROR, {
        f"line {line!r}": _coding(line) for line in (
            b"Transfer-Encoding:", b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked;q=1", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked chunked",
            b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,", b"Transfer-Encoding: cow",
            b"Transfer-Encoding: chunked\x0b",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding\x00: chunked",
        )
    }),
]  # fmt: skip

CHUNKS = [
    *_case("7.1", HELLO, {
        "one chunk": _coding(TE[:-2]),
        "chunked in capitals": _coding(b"TRANSFER-ENCODING: Chunked"),
        "two chunks": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n" + LAST,
        "a size with leading zeros": CHUNKED + b"0005\r\nhello\r\n" + LAST,
        "a last chunk of many zeros": CHUNKED + b"5\r\nhello\r\n0000\r\n\r\n",
        "an extension": CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
        "a quoted extension": CHUNKED + b'5;a="b;c"\r\nhello\r\n' + LAST,
        "chunks in pieces": (CHUNKED[:-1], CHUNKED[-1:] + b"5", b"\r", b"\nhe", SEEN, b"llo\r", b"\n0\r\n", b"\r\n"),
        "a chunk for each byte": CHUNKED + b"".join(b"1\r\n%c\r\n" % each for each in b"hello") + LAST,
    }),
    *_case("7.1", Deliver(), {"an empty chunked body": CHUNKED + LAST}),
    *_case("7.1", Deliver(body=b"0\r\n\r\n"), {"data that looks like chunks": CHUNKED + b"5\r\n0\r\n\r\n\r\n" + LAST}),
    *_case("7.1", Deliver(body=b"a" * 1048576),
            {"a chunk of 1 MiB": CHUNKED + b"100000\r\n" + b"a" * 1048576 + b"\r\n" + LAST}),
    *_case("7.1.2", Deliver(body=b"hello", trailers=((b"x-sum", b"1"),), absent=(b"x-sum: 1",)), {
        "a trailer stays a trailer": OK + TE + b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    }),
    *_case("7.1.2", Deliver(body=b"hello", reuse=Reuse.ANY, absent=(b"content-length", b"evil")), {
        "a trailer that names framing": CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        "a trailer that names Set-Cookie": CHUNKED + b"5\r\nhello\r\n0\r\nSet-Cookie: evil=1\r\n\r\n",
    }),
    *_case("7.1", CUT, {
        f"chunk-size line {line[:24]!r}": (FIRST, SEEN, line + b"hello\r\n" + LAST) for line in (
            b"\r\n", b"g\r\n", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"5\n", b"5\r\r\n",
            b"\n5\r\n", b"5,5\r\n", b"5 5\r\n", b"5\x00\r\n", b"5h\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n", b"00000000000000005\r\n", b"10000000000000005\r\n", b"5;a\nb\r\n",
            b"5;a\x00\r\n", b"5 a=b\r\n",
            b"5;" + b"a" * 5000 + b"\r\n",
        )
    }),
    *_case("7.1", CUT, {
        "data longer than its size": (FIRST, SEEN, b"3\r\nhello\r\n" + LAST),
        "data without its CRLF": (FIRST, SEEN, b"5\r\nhello" + LAST),
        "data that ends in LF": (FIRST, SEEN, b"5\r\nhello\n" + LAST),
        "data that ends in two other bytes": (FIRST, SEEN, b"5\r\nhelloXX" + LAST),
        "the last chunk ends in LF": (FIRST, SEEN, b"0\n\r\n"),
        "the body ends in LF": (FIRST, SEEN, b"0\r\n\n"),
        "an error in the first chunk": (CHUNKED, SEEN, b"x\r\nhello\r\n" + LAST),
    }),
    *_case("7.1.2", CUT, {
        "a trailer without a colon": (FIRST, SEEN, b"0\r\nXYZ\r\n\r\n"),
        "a trailer with a space before the colon": (FIRST, SEEN, b"0\r\nX : y\r\n\r\n"),
        "a trailer with obs-fold": (FIRST, SEEN, b"0\r\nX: y\r\n z\r\n\r\n"),
        "a trailer with LF": (FIRST, SEEN, b"0\r\nX: y\nZ: w\r\n\r\n"),
        "a trailer with NUL": (FIRST, SEEN, b"0\r\nX: \x00\r\n\r\n"),
        "trailers of 9 KiB": (FIRST, SEEN, b"0\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 9 + b"\r\n"),
        "a trailer that never ends": (FIRST, SEEN, b"0\r\nX: " + b"y" * 70000),
    }),
]  # fmt: skip

ENDS = [
    *_case("8", CUT, {
        "a body cut by a close": (OK + b"Content-Length: 9\r\n\r\nhello", SEEN, Step.CLOSE),
        "a body cut by a reset": (OK + b"Content-Length: 9\r\n\r\nhello", SEEN, Step.RESET),
        "a body of which nothing came": (OK + b"Content-Length: 9\r\n\r\n", SEEN, Step.CLOSE),
        "a body cut one byte early": (OK + b"Content-Length: 6\r\n\r\nhello", SEEN, Step.CLOSE),
        "a large body cut": (OK + b"Content-Length: 300000\r\n\r\n" + b"a" * 299999, SEEN, Step.CLOSE),
        "a body that goes silent": (OK + b"Content-Length: 9\r\n\r\nhello", SEEN, Step.SILENCE),
        "chunks cut by a close": (FIRST, SEEN, Step.CLOSE),
        "chunks cut by a reset": (FIRST, SEEN, Step.RESET),
        "chunks cut inside data": (FIRST + b"9\r\nhell", SEEN, Step.CLOSE),
        "chunks cut inside a size": (FIRST + b"1", SEEN, Step.CLOSE),
        "chunks cut after the last size": (FIRST + b"0\r\n", SEEN, Step.CLOSE),
        "chunks cut inside the trailers": (FIRST + b"0\r\nX: y\r\n", SEEN, Step.CLOSE),
        "chunks that go silent": (FIRST, SEEN, Step.SILENCE),
        "a close-delimited body that ends in a reset": (OK + b"\r\nhello", SEEN, Step.RESET),
        "a close-delimited body that goes silent": (OK + b"\r\nhello", SEEN, Step.SILENCE),
    }),
    *_case("8", ERROR, {
        "a close instead of an answer": Step.CLOSE,
        "a reset instead of an answer": Step.RESET,
        "a close inside the status line": (b"HTTP/1.1 20", Step.CLOSE),
        "a close inside the head": (OK + b"X: y\r\n", Step.CLOSE),
        "a reset inside the head": (OK + b"X: y\r\n", Step.RESET),
        "a close before the empty line": (OK + b"Content-Length: 0\r\n", Step.CLOSE),
    }),
    *_case("8", SLOW, {"silence": Step.SILENCE, "half a head, then silence": (OK + b"X: ", Step.SILENCE)}),
    *_case("6.3", RETIRED, {
        "a close-delimited body": (OK + b"\r\nhello", Step.CLOSE),
        "a close-delimited body in pieces": (OK + b"\r\nhe", SEEN, b"llo", Step.CLOSE),
        "a close-delimited body in HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", Step.CLOSE),
        "a half-close after the body": (_length(b"5"), Step.HALF_CLOSE, Step.SILENCE),
        "a close right after the body": (_length(b"5"), Step.CLOSE),
        "a close after the last chunk": (_coding(TE[:-2]), Step.CLOSE),
    }),
    *_case("6.3", Deliver(reuse=Reuse.NO), {"an empty close-delimited body": (OK + b"\r\n", Step.CLOSE)}),
    *_case("9.3", RETIRED, {
        "Connection: close": OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        "Connection: CLOSE among others": OK + b"Connection: x, CLOSE\r\nContent-Length: 5\r\n\r\nhello",
        "Connection: close on a second line": OK + b"Connection: x\r\nConnection: close\r\n" + _length(b"5")[17:],
        "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "chunks and Connection: close": OK + b"Connection: close\r\n" + TE + b"\r\n5\r\nhello\r\n" + LAST,
    }),
    *_case("9.3", Deliver(body=b"hello", reuse=Reuse.ANY), {
        "HTTP/1.0 keep-alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    }),
    *_case("9.2", RETIRED, {
        "bytes after the body": _length(b"5") + b"X",
        "a second answer after the body": _length(b"5") + _length(b"5"),
        "CRLF after the body": _length(b"5") + b"\r\n",
        "bytes after the last chunk": _coding(TE[:-2]) + b"X",
        "a second answer after the last chunk": _coding(TE[:-2]) + _length(b"5"),
        "bytes on the idle connection": (_length(b"5"), DONE, b"X"),
        "an answer on the idle connection": (_length(b"5"), DONE, OK + b"Content-Length: 4\r\n\r\nevil"),
        "a 408 on the idle connection": (
            _length(b"5"), DONE, b"HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n", Step.CLOSE,
        ),
        "a reset of the idle connection": (_length(b"5"), DONE, Step.RESET),
    }),
    *_case("9.2", Deliver(reuse=Reuse.NO), {"a body after Content-Length 0": OK + b"Content-Length: 0\r\n\r\nhello"}),
]  # fmt: skip

NONE, NO_BODY_RETIRED = Deliver(), Deliver(reuse=Reuse.NO)
BODILESS = [
    *_case("6.3", Deliver(204), {"204": b"HTTP/1.1 204 No Content\r\n\r\n"}),
    *_case("6.3", Deliver(204, reuse=Reuse.ANY, or_error=True, absent=(b"content-length", b"transfer-encoding")), {
        "204 with a Content-Length": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "204 with Transfer-Encoding": b"HTTP/1.1 204 No Content\r\n" + TE + b"\r\n",
    }),
    *_case("6.3", Deliver(204, reuse=Reuse.NO), {"204 and then a body": b"HTTP/1.1 204 No Content\r\n\r\nhello"}),
    *_case("6.3", Deliver(304), {
        "304": b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
        "304 with a Content-Length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    }),
    *_case("6.3", Deliver(304, reuse=Reuse.NO),
            {"304 and then a body": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"}),
    *_case("9110 15.3.6", Deliver(205), {"205": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"}),
    ResponseCase("HEAD with a Content-Length", "6.3", (OK + b"Content-Length: 5\r\n\r\n",),
            Deliver(present=(b"content-length: 5\r\n",)), b"HEAD"),
    ResponseCase("HEAD with Transfer-Encoding", "6.3", (OK + TE + b"\r\n",), NONE, b"HEAD"),
    ResponseCase("HEAD without framing", "6.3", (OK + b"\r\n",), NONE, b"HEAD"),
    ResponseCase("HEAD and then a body", "6.3", (_length(b"5"),), NO_BODY_RETIRED, b"HEAD"),
    ResponseCase("HEAD and then chunks", "6.3", (_coding(TE[:-2]),), NO_BODY_RETIRED, b"HEAD"),
    ResponseCase("HEAD with two Content-Lengths", "6.3", (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",),
            ERROR, b"HEAD"),
    ResponseCase("HEAD with CL and TE", "6.3", (OK + b"Content-Length: 5\r\n" + TE + b"\r\n",), ERROR, b"HEAD"),
    ResponseCase("HEAD with a close", "6.3", (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\n",),
            NO_BODY_RETIRED, b"HEAD"),
]  # fmt: skip

BODIES = [*LENGTHS, *CHUNKS, *ENDS, *BODILESS]
