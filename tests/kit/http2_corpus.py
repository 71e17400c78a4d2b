"""Malformed input for HTTP/2 by section of RFC 9113, 7541, 8441 and 9218, each with what it has to be answered with.

    connection(code)   the connection ends with a GOAWAY of that code
    stream(code)       the stream alone is reset with it; the connection goes on
    answer(status)     the stream is answered with that status; the connection goes on
    GOES_ON            nothing ends

One rule: a row is what a client sends after its preface and settings, and nothing else. `/hang` is never answered.
"""

from __future__ import annotations

from dataclasses import dataclass

Lines = list[tuple[bytes, bytes]]
HEAD: Lines = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]


def without(*names: bytes) -> Lines:
    return [line for line in HEAD if line[0] not in names]


MALFORMED: list[tuple[str, str, Lines]] = [
    ("8.2 upper case", "name", [*HEAD, (b"X-A", b"1")]),
    ("8.2.1 empty name", "name", [*HEAD, (b"", b"1")]),
    ("8.2.1 space in a name", "name", [*HEAD, (b"x a", b"1")]),
    ("8.2.1 colon in a name", "name", [*HEAD, (b"x:a", b"1")]),
    ("8.2.1 line break in a name", "name", [*HEAD, (b"x\r\na", b"1")]),
    ("8.2.1 control byte in a name", "name", [*HEAD, (b"x\x00", b"1")]),
    ("8.2.1 name of other bytes", "name", [*HEAD, (b"\xe4", b"1")]),
    ("8.2.1 carriage return", "value", [*HEAD, (b"x", b"1\r2")]),
    ("8.2.1 line feed", "value", [*HEAD, (b"x", b"1\n2")]),
    ("8.2.1 a line of its own", "value", [*HEAD, (b"x", b"1\r\nhost: b")]),
    ("8.2.1 NUL", "value", [*HEAD, (b"x", b"1\x002")]),
    ("8.2.1 space before", "value", [*HEAD, (b"x", b" 1")]),
    ("8.2.1 space behind", "value", [*HEAD, (b"x", b"1 ")]),
    ("8.2.1 tab behind", "value", [*HEAD, (b"x", b"1\t")]),
    ("8.2.1 break in a cookie", "value", [*HEAD, (b"cookie", b"a=1\r\nx: y")]),
    ("8.2.2 connection", "connection_field", [*HEAD, (b"connection", b"close")]),
    ("8.2.2 keep-alive", "connection_field", [*HEAD, (b"keep-alive", b"1")]),
    ("8.2.2 proxy-connection", "connection_field", [*HEAD, (b"proxy-connection", b"close")]),
    ("8.2.2 transfer-encoding", "connection_field", [*HEAD, (b"transfer-encoding", b"chunked")]),
    ("8.2.2 upgrade", "connection_field", [*HEAD, (b"upgrade", b"websocket")]),
    ("8.2.2 te", "te", [*HEAD, (b"te", b"gzip")]),
    ("8.3 unknown pseudo-field", "pseudo_field", [*HEAD, (b":other", b"1")]),
    ("8.3 a response's pseudo-field", "pseudo_field", [*HEAD, (b":status", b"200")]),
    (
        "8.3 pseudo-field behind others",
        "pseudo_late",
        [*without(b":authority"), (b"x", b"1"), (b":authority", b"a.test")],
    ),
    ("8.3 twice: method", "pseudo_field", [*HEAD, (b":method", b"GET")]),
    ("8.3 twice: scheme", "pseudo_field", [*HEAD, (b":scheme", b"https")]),
    ("8.3 twice: authority", "pseudo_field", [*HEAD, (b":authority", b"a.test")]),
    ("8.3 twice: path", "pseudo_field", [*HEAD, (b":path", b"/")]),
    ("8.3.1 no method", "pseudo_value", without(b":method")),
    ("8.3.1 no scheme", "scheme", without(b":scheme")),
    ("8.3.1 no path", "path", without(b":path")),
    ("8.3.1 empty method", "pseudo_value", [(b":method", b""), *without(b":method")]),
    ("8.3.1 method with a space", "pseudo_value", [(b":method", b"GET /x"), *without(b":method")]),
    ("8.3.1 method with a break", "pseudo_value", [(b":method", b"GET\r\n"), *without(b":method")]),
    ("8.3.1 empty path", "path", [*without(b":path"), (b":path", b"")]),
    ("8.3.1 path without a slash", "path", [*without(b":path"), (b":path", b"x")]),
    ("8.3.1 absolute path", "path", [*without(b":path"), (b":path", b"https://a.test/")]),
    ("8.3.1 path with a space", "path", [*without(b":path"), (b":path", b"/a b")]),
    ("8.3.1 path with a break", "path", [*without(b":path"), (b":path", b"/a\r\nx: y")]),
    ("8.3.1 path with a request line", "path", [*without(b":path"), (b":path", b"/ HTTP/1.1\r\nhost: b\r\n\r\n")]),
    ("8.3.1 path with a fragment", "path", [*without(b":path"), (b":path", b"/a#b")]),
    ("8.3.1 path of other bytes", "path", [*without(b":path"), (b":path", b"/\xe4")]),
    ("8.3.1 asterisk that is not for OPTIONS", "path", [*without(b":path"), (b":path", b"*")]),
    ("8.3.1 unknown scheme", "scheme", [*without(b":scheme"), (b":scheme", b"ftp")]),
    ("8.3.1 scheme with a path", "scheme", [*without(b":scheme"), (b":scheme", b"http://b/?")]),
    ("8.3.1 authority with a space", "pseudo_value", [*without(b":authority"), (b":authority", b"a b")]),
    ("8.3.1 authority with a break", "pseudo_value", [*without(b":authority"), (b":authority", b"a\r\nx: y")]),
    ("8.3.1 host of another authority", "host", [*HEAD, (b"host", b"b.test")]),
    ("8.3.1 two hosts", "host", [*without(b":authority"), (b"host", b"a"), (b"host", b"a")]),
    (
        "8.5 CONNECT with a scheme",
        "connect",
        [(b":method", b"CONNECT"), (b":authority", b"a:1"), (b":scheme", b"https")],
    ),
    ("8.5 CONNECT with a path", "connect", [(b":method", b"CONNECT"), (b":authority", b"a:1"), (b":path", b"/")]),
    ("8.5 CONNECT without authority", "connect", [(b":method", b"CONNECT")]),
    ("8441 protocol without CONNECT", "pseudo_field", [*HEAD, (b":protocol", b"websocket")]),
    (
        "8441 CONNECT with a protocol, no path",
        "path",
        [(b":method", b"CONNECT"), *without(b":method", b":path"), (b":protocol", b"x")],
    ),
    ("8441 empty protocol", "pseudo_field", [(b":method", b"CONNECT"), *without(b":method"), (b":protocol", b"")]),
    ("empty list", "pseudo_value", []),
]


LEFT_TO_THE_GRAMMAR: list[tuple[str, int, Lines]] = [
    ("authority with user information", 400, [*without(b":authority"), (b":authority", b"u@a.test")]),
    ("authority with two ports", 400, [*without(b":authority"), (b":authority", b"a:1:2")]),
    ("two lengths", 400, [*HEAD, (b"content-length", b"0"), (b"content-length", b"0")]),
    ("length with a sign", 400, [*HEAD, (b"content-length", b"+1")]),
    ("length of a list", 400, [*HEAD, (b"content-length", b"1, 1")]),
    ("control byte", 400, [*HEAD, (b"x", b"\x01")]),
    ("delete byte", 400, [*HEAD, (b"x", b"\x7f")]),
    ("unknown expectation", 417, [*HEAD, (b"expect", b"other")]),
    ("long line", 431, [*HEAD, (b"x", b"v" * 9000)]),
]


HPACK_FAULTS = [
    ("6.1 index 0", "80"),
    ("6.1 index beyond the tables", "be"),
    ("6.1 index far beyond", "ffff7f"),
    ("6.1 index cut", "ff"),
    ("5.1 integer of five bytes more", "ff8080808001"),
    ("5.1 integer that never ends", "ff" + "80" * 30),
    ("5.2 string shorter than told", "000a6162"),
    ("5.2 string without a length", "00"),
    ("5.2 value missing", "000161"),
    ("5.2 huffman end mark", "0084fffffffc"),
    ("5.2 huffman padding of a byte", "00821cff"),
    ("5.2 huffman padding of zeros", "0081180161"),
    ("6.2.1 name index beyond the tables", "7f0001"),
    ("6.2.2 name index beyond the tables", "0f3001"),
    ("6.2.3 name index beyond the tables", "1f3001"),
    ("6.3 size above what was announced", "3fe21f"),
    ("6.3 size update after a field", "8220"),
    ("6.3 three size updates", "202020"),
    ("6.3 size cut", "3f"),
    ("4.1 string of a length that no block has", "007fffffff7f"),
]


# -- frames, written without any library's opinion -------------------------------------------------------------

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION, UPDATE = (*range(10), 0x10)
END, ACK, HEADERS_END, PADDED, DEPENDS = 1, 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` where it lies."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(fields: Lines) -> bytes:
    """A field block that leaves the table alone."""
    return b"".join([b"\0" + _length(len(n)) + n + _length(len(v)) + v for n, v in fields])


def _length(size: int) -> bytes:
    if size < 127:
        return bytes((size,))
    out, size = [127], size - 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes((*out, size))


def request(path: bytes = b"/", method: bytes = b"GET", extra: Lines | None = None) -> Lines:
    """The fields of a request in the clear."""
    head = [(b":method", method), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", path)]
    return [*head, *(extra or [])]


def asks(
    stream: int = 1, path: bytes = b"/", ends: bool = True, method: bytes = b"GET", extra: Lines | None = None
) -> bytes:
    """A whole request head."""
    flags = HEADERS_END | (END if ends else 0)
    return frame(HEADERS, flags, stream, literal(request(path, method, extra)))


def posts(stream: int = 1, extra: Lines | None = None, path: bytes = b"/hang") -> bytes:
    """The head of a request with a body."""
    return asks(stream, path, False, b"POST", extra)


def window(stream: int, credit: int) -> bytes:
    """A WINDOW_UPDATE."""
    return frame(WINDOW, 0, stream, credit.to_bytes(4, "big"))


def setting(key: int, value: int) -> bytes:
    """SETTINGS with one value."""
    return frame(SETTINGS, 0, 0, key.to_bytes(2, "big") + value.to_bytes(4, "big"))


def rst(stream: int, code: int = 8) -> bytes:
    """An RST_STREAM."""
    return frame(RST, 0, stream, code.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to come of it."""

    ends: str  # connection, stream, answer, nothing
    code: int = 0
    stream: int = 1


def connection(code: int) -> Wanted:
    """The connection ends."""
    return Wanted("connection", code)


def stream(code: int, number: int = 1) -> Wanted:
    """A stream is reset."""
    return Wanted("stream", code, number)


def answer(status: int, number: int = 1) -> Wanted:
    """A stream is answered."""
    return Wanted("answer", status, number)


GOES_ON = Wanted("nothing")
Row = tuple[str, Wanted, bytes]
NAMES = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()  # noqa: SIM905
SOUND = {  # a frame of each kind that would be right elsewhere
    DATA: frame(DATA, 0, 1, b"x"),
    HEADERS: asks(3),
    PRIORITY: frame(PRIORITY, 0, 1, bytes(5)),
    RST: rst(1),
    SETTINGS: frame(SETTINGS, 0, 0),
    PUSH: frame(PUSH, HEADERS_END, 1, b"\0\0\0\2"),
    PING: frame(PING, 0, 0, bytes(8)),
    GOAWAY: frame(GOAWAY, 0, 0, bytes(8)),
    WINDOW: window(1, 1),
    CONTINUATION: frame(CONTINUATION, HEADERS_END, 1, b"\x82"),
    UPDATE: frame(UPDATE, 0, 0, b"\0\0\0\1u=1"),
    0xB: frame(0xB, 0, 0, b"x"),
}
OPENED = frame(HEADERS, END, 1, literal(request())[:20])  # a head that goes on
REST = literal(request())[20:]

# -- the table -------------------------------------------------------------


def _frames() -> list[Row]:
    """RFC 9113 4: what a frame is."""
    rows: list[Row] = [
        ("4.1 unknown kind", GOES_ON, frame(0xB, 0, 0, b"abc")),
        ("4.1 unknown kind of a stream", GOES_ON, frame(0xFE, 0xFF, 7, b"abc")),
        ("4.1 unknown kind, empty", GOES_ON, frame(0xFF, 0, 0)),
        ("4.1 flags that mean nothing", GOES_ON, frame(PING, 0xFE, 0, bytes(8))),
        ("4.1 reserved bit", GOES_ON, frame(PING, 0, 0x80000000, bytes(8))),
        ("4.1 reserved bit of a request", answer(200), b"".join([asks()[:5], b"\x80", asks()[6:]])),
    ]
    for kind, name in enumerate(NAMES):
        rows.append((f"4.2 {name} longer than announced", connection(6), frame(kind, 0, 1, b"", 16385)))
        rows.append((f"4.2 {name} of the largest size", connection(6), frame(kind, 0, 1, b"", (1 << 24) - 1)))
    rows.append(("4.2 unknown kind longer than announced", connection(6), frame(0xB, 0, 0, b"", 16385)))
    for kind in (DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, UPDATE, 0xB):
        rows.append((f"4.3 kind {kind} inside a field block", connection(1), OPENED + SOUND[kind]))
    rows += [
        ("4.3 CONTINUATION of another stream", connection(1), OPENED + frame(CONTINUATION, HEADERS_END, 3, REST)),
        ("4.3 CONTINUATION without a head", connection(1), frame(CONTINUATION, HEADERS_END, 1, b"\x82")),
        (
            "4.3 CONTINUATION behind a whole head",
            connection(1),
            asks(1, b"/hang") + frame(CONTINUATION, HEADERS_END, 1),
        ),
        ("4.3 CONTINUATION of no stream", connection(1), OPENED + frame(CONTINUATION, HEADERS_END, 0, REST)),
        ("4.3 a block in two frames", answer(200), OPENED + frame(CONTINUATION, HEADERS_END, 1, REST)),
        (
            "4.3 a block that ends in an empty frame",
            answer(200),
            OPENED + frame(CONTINUATION, 0, 1, REST) + frame(CONTINUATION, HEADERS_END, 1),
        ),
    ]
    for name, block in HPACK_FAULTS:
        rows.append((f"7541 {name}", connection(9), frame(HEADERS, HEADERS_END | END, 1, bytes.fromhex(block))))
        split = bytes.fromhex(block)
        two = frame(HEADERS, END, 1, split[:1]) + frame(CONTINUATION, HEADERS_END, 1, split[1:])
        rows.append((f"7541 {name}, in two frames", connection(9), two))
    for name, block in HPACK_FAULTS:
        trailers = posts() + frame(HEADERS, HEADERS_END | END, 1, bytes.fromhex(block))
        rows.append((f"7541 {name}, in trailers", connection(9), trailers))
    return rows


def _states() -> list[Row]:
    """RFC 9113 5.1: which frames a stream takes."""
    gone = asks(1, b"/hang") + rst(1)
    over = asks(1, b"/hang")  # its request is whole
    rows: list[Row] = [
        ("5.1 idle: DATA", connection(1), frame(DATA, 0, 1, b"x")),
        ("5.1 idle: DATA that ends it", connection(1), frame(DATA, END, 1)),
        ("5.1 idle: RST_STREAM", connection(1), rst(1)),
        ("5.1 idle: WINDOW_UPDATE", connection(1), window(1, 1)),
        ("5.1 idle: CONTINUATION", connection(1), frame(CONTINUATION, HEADERS_END, 1, b"\x82")),
        ("5.1 idle: PRIORITY", GOES_ON, frame(PRIORITY, 0, 5, bytes(5))),
        ("5.1 idle: WINDOW_UPDATE of a later stream", connection(1), asks() + window(9, 1)),
        ("5.1 half-closed: DATA", stream(5), over + frame(DATA, 0, 1, b"x")),
        ("5.1 half-closed: empty DATA that ends it", stream(5), over + frame(DATA, END, 1)),
        ("5.1 half-closed: HEADERS", stream(5), over + asks(1)),
        ("5.1 half-closed: WINDOW_UPDATE", GOES_ON, over + window(1, 1)),
        ("5.1 half-closed: PRIORITY", GOES_ON, over + frame(PRIORITY, 0, 1, bytes(5))),
        (
            "5.1 half-closed after a body: DATA",
            stream(5),
            posts() + frame(DATA, END, 1, b"x") + frame(DATA, 0, 1, b"x"),
        ),
        (
            "5.1 half-closed after trailers: HEADERS",
            stream(5),
            posts() + frame(HEADERS, 5, 1, literal([(b"x", b"1")])) * 2,
        ),
        ("5.1 closed by its client: DATA", connection(5), gone + frame(DATA, 0, 1, b"x")),
        ("5.1 closed by its client: HEADERS", connection(5), gone + asks(1)),
        ("5.1 closed by its client: CONTINUATION", connection(1), gone + frame(CONTINUATION, HEADERS_END, 1)),
        ("5.1 closed by its client: WINDOW_UPDATE", GOES_ON, gone + window(1, 1)),
        ("5.1 closed by its client: RST_STREAM", GOES_ON, gone + rst(1)),
        ("5.1 closed by its client: PRIORITY", GOES_ON, gone + frame(PRIORITY, 0, 1, bytes(5))),
        ("5.1 reset by us: DATA under way", stream(1), posts(1, [(b"x", b" 1")]) + frame(DATA, END, 1, b"x")),
        (
            "5.1 reset by us: trailers under way",
            stream(1),
            posts(1, [(b"x", b" 1")]) + frame(HEADERS, 5, 1, literal([(b"x", b"1")])),
        ),
        ("5.1 reset by us: WINDOW_UPDATE under way", stream(1), posts(1, [(b"x", b" 1")]) + window(1, 1)),
        ("5.1.1 even number", connection(1), asks(2)),
        ("5.1.1 number of the connection", connection(1), asks(0)),
        ("5.1.1 number that was left out", connection(1), asks(7) + asks(5)),
        ("5.1.1 number that was left out first", connection(1), asks(3) + asks(1)),
        ("5.1.1 number of a stream that is over", connection(5), asks(1, b"/hang") + rst(1) + asks(3) + asks(1)),
        ("5.1.1 numbers may be left out", answer(200, 9), asks(9)),
        ("5.1.1 the last number", answer(200, 2**31 - 1), asks(2**31 - 1)),
        ("5.4.1 GOAWAY behind a fault is not waited for", connection(1), frame(PING, 0, 1, bytes(8)) + asks(1)),
    ]
    for kind in (DATA, HEADERS, PRIORITY, RST, CONTINUATION):
        wanted = connection(1)
        rows.append(
            (
                f"5.1 {NAMES[kind]} of the connection",
                wanted,
                frame(kind, HEADERS_END if kind == HEADERS else 0, 0, SOUND[kind][9:]),
            )
        )
    for kind in (SETTINGS, PING, GOAWAY):
        rows.append((f"5.1 {NAMES[kind]} of a stream", connection(1), frame(kind, 0, 1, SOUND[kind][9:])))
    return rows


def _data() -> list[Row]:
    """RFC 9113 6.1, 6.2 and 8.1: bodies, padding, lengths."""
    told = posts(1, [(b"content-length", b"5")])
    rows: list[Row] = []
    for padding, payload in ((1, b""), (2, b"a"), (255, b"abc"), (5, b"abcd")):
        rows.append(
            (
                f"6.1 padding of {padding} in {len(payload)} bytes",
                connection(1),
                posts() + frame(DATA, PADDED, 1, bytes((padding,)) + payload),
            )
        )
        rows.append(
            (
                f"6.2 padding of {padding} in {len(payload)} bytes of HEADERS",
                connection(1),
                frame(HEADERS, PADDED | 5, 1, bytes((padding,)) + payload),
            )
        )
    rows += [
        ("6.1 padding without a length", connection(1), posts() + frame(DATA, PADDED, 1)),
        ("6.2 padding without a length", connection(1), frame(HEADERS, PADDED | 5, 1)),
        ("6.2 priority cut", connection(6), frame(HEADERS, DEPENDS | 5, 1, bytes(4))),
        ("6.2 padding and priority cut", connection(6), frame(HEADERS, DEPENDS | PADDED | 5, 1, b"\1" + bytes(5))),
        (
            "6.2 stream that depends on itself",
            connection(1),
            frame(HEADERS, DEPENDS | 5, 1, b"\0\0\0\1\0" + literal(request())),
        ),
        (
            "6.2 padding that fills the frame",
            answer(200),
            frame(HEADERS, PADDED | 5, 1, b"\x09" + literal(request()) + bytes(9)),
        ),
        ("6.2 priority", answer(200), frame(HEADERS, DEPENDS | 5, 1, b"\0\0\0\3\0" + literal(request()))),
        ("8.1.1 body longer than told", stream(1), told + frame(DATA, 0, 1, b"abcdef")),
        (
            "8.1.1 body longer than told, in two",
            stream(1),
            told + frame(DATA, 0, 1, b"abc") + frame(DATA, 0, 1, b"def"),
        ),
        ("8.1.1 body shorter than told", stream(1), told + frame(DATA, END, 1, b"abc")),
        ("8.1.1 no body where one was told", stream(1), told + frame(DATA, END, 1)),
        ("8.1.1 no body where one was told, at once", stream(1), asks(1, extra=[(b"content-length", b"5")])),
        (
            "8.1.1 trailers before the body is whole",
            stream(1),
            told + frame(DATA, 0, 1, b"abc") + frame(HEADERS, 5, 1, literal([(b"x", b"1")])),
        ),
        ("8.1.1 padding does not count", stream(1), told + frame(DATA, PADDED | END, 1, b"\2abc\0\0")),
        (
            "8.1.1 body where none was told",
            stream(1),
            posts(1, [(b"content-length", b"0")]) + frame(DATA, END, 1, b"a"),
        ),
        (
            "8.1 trailers that do not end it",
            stream(1),
            posts() + frame(HEADERS, HEADERS_END, 1, literal([(b"x", b"1")])),
        ),
        ("8.1 a second head", stream(1), posts() + asks(1, ends=False)),
        ("8.1 pseudo-field in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b":path", b"/")]))),
        ("8.1 status in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b":status", b"200")]))),
        ("8.1 upper case in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b"X", b"1")]))),
        ("8.1 break in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b"x", b"1\r\ny: z")]))),
        ("8.1 space in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b"x", b"1 ")]))),
        ("8.1 connection in trailers", stream(1), posts() + frame(HEADERS, 5, 1, literal([(b"connection", b"close")]))),
        (
            "8.1 transfer-encoding in trailers",
            stream(1),
            posts() + frame(HEADERS, 5, 1, literal([(b"transfer-encoding", b"chunked")])),
        ),
        ("8.1 trailers that are too large", stream(11), posts() + frame(HEADERS, 5, 1, literal([(b"x", b"v" * 9000)]))),
        ("8.1 too many trailers", stream(11), posts() + frame(HEADERS, 5, 1, literal([(b"x", b"")] * 200))),
    ]
    return rows


def _control() -> list[Row]:
    """RFC 9113 6.3 to 6.10, 9218 7.1: frames of a fixed form."""
    rows: list[Row] = []
    for size in (0, 1, 4, 6, 16):
        rows.append(
            (f"6.3 PRIORITY of {size} bytes", stream(6), asks(1, b"/hang") + frame(PRIORITY, 0, 1, bytes(size)))
        )
        rows.append(
            (f"6.3 PRIORITY of {size} bytes of no open stream", connection(6), frame(PRIORITY, 0, 9, bytes(size)))
        )
    for size in (0, 3, 5, 8):
        rows.append(
            (f"6.4 RST_STREAM of {size} bytes", connection(6), asks(1, b"/hang") + frame(RST, 0, 1, bytes(size)))
        )
        rows.append((f"6.9 WINDOW_UPDATE of {size} bytes", connection(6), frame(WINDOW, 0, 0, bytes(size))))
        rows.append(
            (
                f"6.9 WINDOW_UPDATE of {size} bytes of a stream",
                connection(6),
                asks(1, b"/hang") + frame(WINDOW, 0, 1, bytes(size)),
            )
        )
    for size in (1, 5, 7, 13):
        rows.append((f"6.5 SETTINGS of {size} bytes", connection(6), frame(SETTINGS, 0, 0, bytes(size))))
    for size in (6, 12):
        rows.append((f"6.5 acknowledgement of {size} bytes", connection(6), frame(SETTINGS, ACK, 0, bytes(size))))
    for size in (0, 7, 9, 16):
        rows.append((f"6.7 PING of {size} bytes", connection(6), frame(PING, 0, 0, bytes(size))))
        rows.append((f"6.7 answer to a PING of {size} bytes", connection(6), frame(PING, ACK, 0, bytes(size))))
    for size in (0, 4, 7):
        rows.append((f"6.8 GOAWAY of {size} bytes", connection(6), frame(GOAWAY, 0, 0, bytes(size))))
    for value in (2, 3, 2**32 - 1):
        rows.append((f"6.5.2 push {value}", connection(1), setting(2, value)))
        rows.append((f"8441 3 extended CONNECT {value}", connection(1), setting(8, value)))
        rows.append((f"9218 2.1 no priorities {value}", connection(1), setting(9, value)))
    for value in (2**31, 2**32 - 1):
        rows.append((f"6.5.2 window {value}", connection(3), setting(4, value)))
    for value in (0, 1, 16383, 2**24, 2**32 - 1):
        rows.append((f"6.5.2 frames of {value}", connection(1), setting(5, value)))
    rows += [
        ("6.3 PRIORITY on itself", stream(1), asks(1, b"/hang") + frame(PRIORITY, 0, 1, b"\0\0\0\1\0")),
        ("6.5.2 unknown setting", GOES_ON, setting(0x99, 2**32 - 1)),
        ("6.5.2 the same setting twice", GOES_ON, setting(3, 1) + setting(3, 2)),
        ("6.5.2 no table", answer(200), setting(1, 0) + asks()),
        ("6.5.2 a table of any size", answer(200), setting(1, 2**32 - 1) + asks()),
        ("6.5.2 the largest frames", answer(200), setting(5, 2**24 - 1) + asks()),
        ("6.5 acknowledgement that nobody asked for", GOES_ON, frame(SETTINGS, ACK, 0)),
        ("6.6 PUSH_PROMISE", connection(1), asks(1, b"/hang") + SOUND[PUSH]),
        ("6.6 PUSH_PROMISE of no stream", connection(1), frame(PUSH, HEADERS_END, 0, b"\0\0\0\2")),
        ("6.7 answer to no PING", GOES_ON, frame(PING, ACK, 0, bytes(8))),
        ("6.9 credit of nothing", connection(1), window(0, 0)),
        ("6.9 credit of nothing for a stream", stream(1), asks(1, b"/hang") + window(1, 0)),
        ("6.9 reserved bit of a credit of nothing", connection(1), window(0, 2**31)),
        ("6.9.1 window that overflows", connection(3), window(0, 2**31 - 1)),
        ("6.9.1 window that overflows in two", connection(3), window(0, 2**30) * 2),
        ("6.9.1 window of a stream that overflows", stream(3), asks(1, b"/hang") + window(1, 2**31 - 1)),
        (
            "6.9.2 window of a stream that overflows by a setting",
            connection(3),
            asks(1, b"/hang") + window(1, 2**31 - 1 - 65535) + setting(4, 2**31 - 1),
        ),
        ("6.9.1 largest window", GOES_ON, window(0, 2**31 - 1 - 65535)),
        ("9218 7.1 PRIORITY_UPDATE of a stream", connection(1), frame(UPDATE, 0, 1, b"\0\0\0\1u=1")),
        ("9218 7.1 PRIORITY_UPDATE for no stream", connection(1), frame(UPDATE, 0, 0, b"\0\0\0\0u=1")),
        ("9218 7.1 PRIORITY_UPDATE cut", connection(6), frame(UPDATE, 0, 0, b"\0\0\0")),
        (
            "9218 7.1 PRIORITY_UPDATE that says nothing",
            GOES_ON,
            asks(1, b"/hang") + frame(UPDATE, 0, 0, b"\0\0\0\1\xff\0;,"),
        ),
        ("10.5.1 empty CONTINUATION", connection(11), OPENED + frame(CONTINUATION, 0, 1)),
        ("10.5.1 nine CONTINUATION", connection(11), OPENED + frame(CONTINUATION, 0, 1, b"\x82") * 9),
        ("10.5.1 field block of 40 KiB", connection(11), OPENED + frame(CONTINUATION, 0, 1, bytes(14000)) * 3),
        ("10.5.1 list that is far too large", connection(11), frame(HEADERS, 5, 1, b"\x82" * 5000)),
    ]
    return rows


def _messages() -> list[Row]:
    """RFC 9113 8: what a request is."""
    rows: list[Row] = []
    for name, _, fields in MALFORMED:
        plain = [(key, b"http" if (key, value) == (b":scheme", b"https") else value) for key, value in fields]
        rows.append((name, stream(1), frame(HEADERS, 5, 1, literal(plain))))
        rows.append(
            (
                f"{name}, with a body",
                stream(1),
                frame(HEADERS, HEADERS_END, 1, literal(plain)) + frame(DATA, END, 1, b"abc"),
            )
        )
    for name, status, fields in LEFT_TO_THE_GRAMMAR:
        plain = [(key, b"http" if (key, value) == (b":scheme", b"https") else value) for key, value in fields]
        rows.append((f"9110 {name}", answer(status), frame(HEADERS, 5, 1, literal(plain))))
    rows += [
        (
            "8.5 CONNECT",
            answer(405),
            frame(HEADERS, 5, 1, literal([(b":method", b"CONNECT"), (b":authority", b"a:1")])),
        ),
        ("9110 9.3.8 TRACE", answer(405), asks(1, method=b"TRACE")),
        (
            "8.3.1 no authority",
            answer(400),
            frame(HEADERS, 5, 1, literal([line for line in request() if line[0] != b":authority"])),
        ),
        ("8.3.1 scheme of another connection", answer(421), frame(HEADERS, 5, 1, literal(HEAD))),
        ("8.3.1 OPTIONS of everything", answer(200), asks(1, b"*", method=b"OPTIONS")),
        ("8.2.3 crumbs", answer(200), asks(1, extra=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])),
        ("10.5.1 head over its limit", answer(431), frame(HEADERS, 5, 1, literal(request(extra=[(b"x", b"")] * 120)))),
        ("10.5.1 target over its limit", answer(414), asks(1, b"/" + b"p" * 9000)),
    ]
    return rows


def table() -> list[Row]:
    """All of it."""
    return [*_frames(), *_states(), *_data(), *_control(), *_messages()]


BEFORE_SETTINGS = [(f"3.4 {NAMES[kind]} before SETTINGS", SOUND[kind]) for kind in range(10) if kind != SETTINGS]
BEFORE_SETTINGS += [
    ("3.4 acknowledgement before SETTINGS", frame(SETTINGS, ACK, 0)),
    ("3.4 unknown before SETTINGS", SOUND[0xB]),
]
