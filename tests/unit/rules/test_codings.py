"""Which coding a client gets, what that does to a head, and that every coder gives the same bytes back."""

from __future__ import annotations

import zlib

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from edge.dataplane.rules.codings import available, stream, whole
from edge.dataplane.rules.compression import Compression, coded_head, same_tag, varied
from edge.http.message import Fields

RULE = Compression(("zstd", "br", "gzip"), ("text/*", "application/json"), 10, None)


def plain(coding: str, data: bytes) -> bytes:
    """The body again, by another decoder than the gateway's."""
    if coding == "br":
        return bytes(brotli.decompress(data))
    return bytes(zstd.decompress(data)) if coding == "zstd" else zlib.decompress(data, 31)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, None),
        (b"", None),
        (b"gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip, deflate, br", "br"),
        (b"GZip;Q=1", "gzip"),
        (b"gzip;q=1, br;q=0.5", "gzip"),
        (b"gzip;q=0", None),
        (b"*", "zstd"),
        (b"*;q=0.1, gzip", "gzip"),
        (b"zstd;q=0, *", "br"),
        (b"x-gzip", "gzip"),
        (b"identity", None),
        (b"identity;q=1, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", "gzip"),
        (b"gzip;q=banana", None),
        (b"gzip;q=2", None),
        (b"deflate", None),
        (b"," * 5000 + b"gzip", None),
    ],
)
def test_the_clients_weights_come_first(accept: bytes | None, wanted: str | None) -> None:
    assert RULE.choose(accept) == wanted == RULE.choose(accept)


@given(st.binary(max_size=60))
def test_any_bytes_choose_something(accept: bytes) -> None:
    assert RULE.choose(accept) in (None, "zstd", "br", "gzip")


def lines(*more: tuple[bytes, bytes]) -> Fields:
    return Fields([(b"Content-Type", b"text/html; charset=utf-8"), *more])


@pytest.mark.parametrize(
    ("status", "fields", "length", "wanted"),
    [
        (200, lines(), 100, True),
        (200, lines(), None, True),
        (404, lines(), 100, True),
        (200, lines(), 9, False),
        (200, Fields([(b"Content-Type", b"image/png")]), 100, False),
        (200, Fields(), 100, False),
        (200, Fields([(b"content-type", b"TEXT/PLAIN")]), 100, True),
        (200, lines((b"Content-Encoding", b"gzip")), 100, False),
        (200, lines((b"Content-Encoding", b"identity")), 100, False),
        (200, lines((b"Cache-Control", b"public, No-Transform")), 100, False),
        (206, lines((b"Content-Range", b"bytes 0-1/2")), 100, False),
        (204, lines(), None, False),
        (304, lines(), None, False),
        (101, lines(), None, False),
    ],
)
def test_what_is_coded(status: int, fields: Fields, length: int | None, wanted: bool) -> None:
    assert RULE.suits(status, fields, length) is wanted


@pytest.mark.parametrize("coding", available())
@pytest.mark.parametrize("level", [None, 1, 9])
@given(pieces=st.lists(st.binary(max_size=3000), max_size=8), flushes=st.booleans())
def test_every_coder_gives_the_bytes_back(coding: str, level: int | None, pieces: list[bytes], flushes: bool) -> None:
    coder = stream(coding, level, flushes)
    made = b"".join([*(coder.piece(piece) for piece in pieces), coder.end()])
    assert plain(coding, made) == b"".join(pieces)
    assert plain(coding, whole(coding, level, b"".join(pieces))) == b"".join(pieces)


@pytest.mark.parametrize("coding", available())
def test_a_flushed_piece_can_be_read_at_once(coding: str) -> None:
    coder = stream(coding, None, True)
    decoder = {"br": brotli.Decompressor, "zstd": zstd.ZstdDecompressor, "gzip": lambda: zlib.decompressobj(31)}[
        coding
    ]()
    read = decoder.process if coding == "br" else decoder.decompress
    for piece in (b"data: 1\n\n", b"data: 2\n\n"):
        assert read(coder.piece(piece)) == piece


def test_a_coded_head() -> None:
    fields = lines((b"ETag", b'"a"'), (b"Accept-Ranges", b"bytes"), (b"Content-Length", b"5"), (b"Vary", b"Origin"))
    wire = b"HTTP/1.1 200 OK\r\n" + fields.encode()
    assert coded_head(wire, fields, "br") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nVary: Origin\r\nVary: Accept-Encoding\r\n"
        b'Content-Encoding: br\r\nETag: W/"a"\r\n'
    )
    for vary in (b"*", b"accept-encoding", b"Origin, Accept-Encoding"):
        assert varied(b"", lines((b"Vary", vary))) == b""


@pytest.mark.parametrize(
    ("has", "wanted"),
    [(b'W/"a"', b'W/"a"'), (b'"a"', b'"a"'), (b'"b", W/"a"', b'W/"a"'), (b'W/"a", "a"', b'"a"'), (b'"b"', b'"a"')],
)
def test_a_304_names_the_tag_that_the_client_has(has: bytes, wanted: bytes) -> None:
    fields = Fields([(b"ETag", b'"a"')])
    wire = b"HTTP/1.1 304 Not Modified\r\n" + fields.encode()
    made = same_tag(Fields([(b"If-None-Match", has)]), 304, wire, fields)
    assert made == b"HTTP/1.1 304 Not Modified\r\nETag: " + wanted + b"\r\n"


def test_a_high_level_is_never_worked_out_on_the_loop() -> None:
    body = b"".join(b"%d " % (number * 7919) for number in range(4000))
    for name in available():
        coder = stream(name, 9, False)
        usual = stream(name, None, False)
        assert coder.piece(body) + coder.end() == usual.piece(body) + usual.end()
    assert not Compression(("br",), ("text/*",), 1, 9).is_quick and RULE.is_quick
