"""TLS over a socket's transport: what comes is given on at once, what it brings about leaves together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.protocols import RecordingProtocol
from kit.tls import issue

from edge.adapters.tls import server_context
from edge.dataplane.client.tls_transport import ANSWERS_BYTES, EMPTY_BYTES, GATHERED_BYTES, READ_BYTES, TlsTransport

SECURE = ssl.create_default_context()
SECURE.check_hostname, SECURE.verify_mode = False, ssl.CERT_NONE


class Socket(asyncio.Transport):
    """What the loop's transport is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[object] = []
        self.writes: list[bytes] = []
        self.notes: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.notes or self.notes[-1] != "close"
        self.writes.append(bytes(data))

    def set_protocol(self, protocol: Any) -> None:
        self.protocols.append(protocol)

    def close(self) -> None:
        self.notes.append("close")

    def abort(self) -> None:
        self.notes.append("abort")

    def is_closing(self) -> bool:
        return bool({"close", "abort"}.intersection(self.notes))

    def pause_reading(self) -> None:
        self.notes.append("pause")

    def resume_reading(self) -> None:
        self.notes.append("resume")

    def get_write_buffer_size(self) -> int:
        return 1000


class Server(RecordingProtocol):
    """The protocol above; `then` is what a test wants done with data."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[bytes], None] = self.pieces.append

    def data_received(self, data: bytes) -> None:
        self.then(data)


class Records:
    """Makes a client's records by hand, from its traffic secret (RFC 8446 5.2, 7.3): what `ssl` has no call for."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret, self._count = secret, 0
        self._cipher, self._nonce = AESGCM(self._expand(b"key", 32)), self._expand(b"iv", 12)

    def _expand(self, label: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + bytes([len(label) + 6]) + b"tls13 " + label + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)

    def record(self, content: bytes, kind: int = 23) -> bytes:
        """One record; of application data if nothing else is said."""
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = (int.from_bytes(self._nonce, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        return head + self._cipher.encrypt(nonce, content + bytes([kind]), head)

    def new_keys(self, answered: bool) -> bytes:
        """A KeyUpdate (RFC 8446 4.6.3), after which the next keys are in use."""
        said = self.record(b"\x18\0\0\x01" + bytes([answered]), 22)
        self._use(self._expand(b"traffic upd", 48))
        return said


class Joined:
    """A client in memory and our end of its connection, after the handshake."""

    def __init__(self, context: ssl.SSLContext, early: bytes = b"", secure: ssl.SSLContext = SECURE) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = secure.wrap_bio(self._in, self._out)
        self.socket, self.server = Socket(), Server()
        self.transport = TlsTransport(self.socket, None)
        self.transport.open(context)
        with pytest.raises(ssl.SSLWantReadError):
            self.client.do_handshake()
        while not self.transport.shake(self._out.read()):
            self.arrive()
            self.client.do_handshake()
        if early:
            self.client.write(early)
        self.transport._incoming.write(self._out.read())
        self.transport.set_protocol(self.server)
        self.transport.begin()

    def arrive(self) -> None:
        """What we wrote reaches the client."""
        self._in.write(b"".join(self.socket.writes))
        self.socket.writes.clear()

    def said(self) -> bytes:
        """What the client reads of it; it ends with `.` where we ended."""
        self.arrive()
        found = b""
        while True:
            try:
                piece = self.client.read(100_000)
            except ssl.SSLWantReadError:
                return found
            except ssl.SSLZeroReturnError:
                piece = b""
            if not piece:
                return found + b"."
            found += piece

    def told(self, data: bytes) -> bytes:
        """The records in which the client says this."""
        self.client.write(data)
        return self._out.read()

    def end(self) -> bytes:
        """The client's own end."""
        try:
            self.client.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self._out.read()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = Path(tmp_path_factory.mktemp("tls"))
    files = issue(trustme.CA(), folder, "a.test")
    return server_context(*files.pair)


def test_the_socket_has_one_protocol_from_the_start(context: ssl.SSLContext) -> None:
    """Another one would stop and start its reading, in system calls."""
    joined = Joined(context)
    joined.transport.data_received(joined.told(b"asked"))
    assert joined.socket.protocols == [joined.transport]
    assert joined.server.pieces == [b"asked"]


def test_before_the_handshake_bytes_are_passed_on_as_they_are() -> None:
    socket, above = Socket(), Server()
    transport = TlsTransport(socket, above)
    transport.data_received(b"GET /")
    transport.connection_lost(None)
    assert (above.pieces, above.notes, socket.writes) == ([b"GET /"], ["lost"], [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 40_000), max_size=5), cuts=st.lists(st.integers(1, 60_000), max_size=6))
def test_however_records_are_cut_the_bytes_are_the_same(
    sizes: list[int], cuts: list[int], context: ssl.SSLContext
) -> None:
    joined = Joined(context)
    said = [bytes([number + 65]) * size for number, size in enumerate(sizes)]
    records = b"".join(joined.told(each) for each in said if each)
    for cut in cuts:
        joined.transport.data_received(records[:cut])
        records = records[cut:]
    joined.transport.data_received(records)
    assert joined.server.got == b"".join(said)
    joined.server.pieces.clear()
    joined.transport.data_received(joined.told(b"the next"))
    assert joined.server.pieces == [b"the next"]


def test_a_read_of_many_records_is_given_on_once(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.transport.data_received(b"".join(joined.told(b"%d" % number) for number in range(10)))
    assert joined.server.pieces == [b"0123456789"]


def test_what_came_with_the_end_of_the_handshake_is_read(context: ssl.SSLContext) -> None:
    assert Joined(context, early=b"GET").server.pieces == [b"GET"]


def test_all_that_one_read_brings_about_leaves_in_one_write(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.said()

    def answer(data: bytes) -> None:
        joined.transport.write(b"head")
        joined.transport.writelines([b"", b"body", bytearray(b"."), memoryview(b"end")])
        joined.transport.close()
        joined.transport.write(b"never")

    joined.server.then = answer
    joined.transport.data_received(joined.told(b"GET"))
    assert len(joined.socket.writes) == 1
    assert joined.said() == b"headbody.end."


def test_what_nobody_asked_for_leaves_at_once_and_one_buffer_counts_it(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.said()
    for number in (1, 2):
        joined.transport.write(b"x")
        assert len(joined.socket.writes) == number
    assert joined.transport.get_write_buffer_size() == 1000
    unsent = []

    def answer(data: bytes) -> None:
        joined.transport.write(b"y" * 100)
        unsent.append(joined.transport.get_write_buffer_size())

    joined.server.then = answer
    joined.transport.data_received(joined.told(b"GET"))
    assert unsent[0] > 1100


def test_a_large_answer_is_not_gathered_whole(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.said()
    body = bytes(range(256)) * 4000
    joined.server.then = lambda _: joined.transport.write(body)
    joined.transport.data_received(joined.told(b"GET"))
    assert max(len(each) for each in joined.socket.writes) < 2 * GATHERED_BYTES
    assert joined.said() == body


def test_what_openssl_says_by_itself_leaves_too(context: ssl.SSLContext) -> None:
    """The session ticket, though the protocol says nothing."""
    joined = Joined(context)
    assert (joined.client.version(), len(joined.socket.writes), joined.server.pieces) == ("TLSv1.3", 1, [])


def test_our_end_waits_for_the_clients(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.transport.close()
    assert (joined.said(), joined.transport.is_closing()) == (b".", True)
    assert joined.socket.notes == ["resume"]  # so that the client's is heard, also where nothing was read
    joined.transport.data_received(joined.told(b"late"))
    assert (joined.server.pieces, joined.socket.notes) == ([], ["resume"])
    joined.transport.data_received(joined.end())
    assert (joined.server.notes, joined.socket.notes) == ([], ["resume", "close"])


def test_the_clients_end_is_answered(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    last = joined.told(b"last")
    joined.transport.data_received(last + joined.end())
    assert (joined.server.pieces, joined.server.notes) == ([b"last"], ["eof"])
    assert joined.said() == b"."
    assert joined.socket.notes == ["resume", "close"]
    joined.transport.connection_lost(None)
    assert joined.server.notes == ["eof", "lost"]


def test_an_end_without_a_word_is_no_end_of_what_was_sent(context: ssl.SSLContext) -> None:
    """A cut must not look like an orderly end: the protocol only hears that the connection is lost."""
    joined = Joined(context)
    assert joined.transport.eof_received() is False
    assert joined.transport.is_closing()
    joined.transport.connection_lost(None)
    assert joined.server.notes == ["lost"]
    joined.transport.write(b"nobody")


@pytest.mark.parametrize("at", [0, 5, 20], ids=["kind", "first", "inside"])
def test_a_damaged_record_ends_the_connection(at: int, context: ssl.SSLContext) -> None:
    joined = Joined(context)
    record = bytearray(joined.told(b"x" * 100))
    record[at] ^= 0x40
    joined.transport.data_received(bytes(record))
    assert (joined.server.pieces, joined.socket.notes) == ([], ["abort"])
    assert joined.transport.is_closing()


def test_who_pauses_pauses_the_socket(context: ssl.SSLContext) -> None:
    joined = Joined(context)
    joined.transport.pause_reading()
    joined.transport.resume_reading()
    assert joined.socket.notes == ["pause", "resume"]
    joined.transport.pause_writing()
    joined.transport.resume_writing()
    assert joined.server.notes == ["pause", "resume"]
    assert not joined.transport.can_write_eof()
    assert joined.transport.get_extra_info("ssl_object") is joined.transport.session


def test_a_client_that_is_refused_is_told_why(context: ssl.SSLContext) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode, client.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES128-SHA")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(incoming, outgoing).do_handshake()
    socket = Socket()
    transport = TlsTransport(socket, None)
    transport.open(context)
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        transport.shake(outgoing.read())
    (said,) = socket.writes
    assert said[:1] + said[-2:] == b"\x15\x02\x28"  # fatal: handshake_failure


@pytest.mark.parametrize("within", [True, False], ids=["within-a-read", "later"])
def test_parting_awaits_nothing_of_the_client(within: bool, context: ssl.SSLContext) -> None:
    joined = Joined(context)

    def answer(data: bytes) -> None:
        joined.transport.write(b"answer")
        joined.transport.part()

    joined.server.then = answer if within else joined.server.pieces.append
    joined.said()
    joined.transport.data_received(joined.told(b"asked"))
    if not within:
        answer(b"")
    assert joined.socket.notes[-1] == "close"
    assert joined.said() == b"answer."


# -- keys that are renewed ---------------------------------------------------------------------------------------------


@pytest.fixture
def renewing(context: ssl.SSLContext, tmp_path: Path) -> tuple[Joined, Records]:
    """A connection whose client goes on with records made by hand."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.keylog_filename = str(tmp_path / "keys")
    joined = Joined(context, secure=client)
    assert (joined.client.cipher() or "")[0] == "TLS_AES_256_GCM_SHA384"
    rows = [line.split() for line in (tmp_path / "keys").read_text().splitlines()]
    (secret,) = [row[2] for row in rows if row[0] == "CLIENT_TRAFFIC_SECRET_0"]
    return joined, Records(bytes.fromhex(secret))


def test_keys_may_be_renewed(renewing: tuple[Joined, Records]) -> None:
    joined, records = renewing
    for number in range(300):
        joined.transport.data_received(records.new_keys(number % 2 == 0) + records.record(b"%d." % number))
    assert joined.server.got == b"".join(b"%d." % number for number in range(300))
    joined.server.then = lambda data: joined.transport.write(b"answer")
    joined.transport.data_received(records.record(b"x"))
    assert joined.said() == b"answer"
    assert "abort" not in joined.socket.notes


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "not-answered"])
@pytest.mark.parametrize("between", [b"", b"x"], ids=["nothing-else", "data-between"])
def test_keys_that_are_renewed_for_ever_are_neither_worked_for_nor_answered_for_ever(
    answered: bool, between: bytes, renewing: tuple[Joined, Records]
) -> None:
    joined, records = renewing
    joined.said()
    came, read = 0, b""
    while came < 4 * EMPTY_BYTES and not joined.transport.is_closing():
        read = b"".join(records.new_keys(answered) for _ in range(100)) + (records.record(between) if between else b"")
        joined.transport.data_received(read)
        came += len(read)
    assert joined.transport.is_closing() == bool(answered or not between), "data among them has deadlines of its own"
    assert joined.socket.notes in ([], ["abort"])
    assert sum(map(len, joined.socket.writes)) <= ANSWERS_BYTES
    if joined.transport.is_closing():
        assert came <= EMPTY_BYTES + len(read)


def test_what_came_at_once_is_decrypted_in_parts(renewing: tuple[Joined, Records]) -> None:
    joined, records = renewing
    joined.transport.data_received(b"".join(records.record(b"x" * 16000) for _ in range(20)))
    assert sum(map(len, joined.server.pieces)) == 20 * 16000
    assert max(map(len, joined.server.pieces)) <= READ_BYTES
    joined.transport.data_received(b"".join(records.new_keys(False) for _ in range(10_000)))
    assert joined.socket.notes == ["abort"]
