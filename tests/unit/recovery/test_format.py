"""Bytes: what was written is read back; whatever was changed, cut, lengthened or renamed is not."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ChecksumMismatch, RepositoryNewer, WrongKey
from edge.recovery import format as form
from edge.recovery.format import BodyPlace
from edge.recovery.points import Evidence, Point, PointKind, StoredFile
from edge.recovery.seal import AesSealer, PlainSealer, Sealer, derived, key_check
from edge.recovery.table import Delta, Entry, Table, apply, delta, digest

KEY = bytes(range(32))
SEALERS = [PlainSealer(), AesSealer(KEY, os.urandom)]
NAMES = st.text(max_size=12)
ENTRIES = st.builds(Entry, st.binary(max_size=40)) | st.builds(
    Entry, st.binary(max_size=10), st.binary(min_size=32, max_size=32), st.integers(0, 2**40)
)
TABLES = st.dictionaries(NAMES, ENTRIES, max_size=12)
POINT = Point(
    *("", "", PointKind.INCREMENTAL, 1795000000.125, "h", 4, 9, "parent", "f" * 64, ("full", "parent")),
    digest="d" * 64,
    index=(StoredFile("a" * 64, 10),),
    packs=(StoredFile("b" * 64, 20),),
    left_out=("a key",),
)


@settings(deadline=None)
@given(TABLES, TABLES)
def test_a_delta_makes_one_table_of_the_other(old: Table, new: Table) -> None:
    change, made = delta(old, new), dict(old)
    apply(made, change)
    assert made == new and digest(made) == digest(new)
    assert bool(change) == (old != new)


@settings(deadline=None)
@given(TABLES, TABLES)
def test_two_tables_have_one_digest_only_when_they_are_the_same(one: Table, other: Table) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert digest(dict(reversed(one.items()))) == digest(one)


@settings(deadline=None)
@given(TABLES, st.lists(NAMES, unique=True, max_size=6), st.integers(0, 5))
def test_an_index_is_read_back(table: Table, removed: list[str], packs: int) -> None:
    places = {
        bytes([number, at] * 16): BodyPlace(bytes([number] * 32), at * 10, 10, 7)
        for number in range(packs)
        for at in range(number)
    }
    change = Delta(table, tuple(sorted(removed)))
    payloads = list(form.index_payloads(change, places, {place.pack: 100 for place in places.values()}))
    found = form.read_index(payloads)
    assert (dict(found.change.put), found.change.removed, found.places) == (table, change.removed, places)


@settings(deadline=None)
@given(TABLES.filter(bool), st.data())
def test_an_index_that_is_cut_or_lengthened_is_refused(table: Table, data: st.DataObject) -> None:
    payload = next(form.index_payloads(Delta(table), {}, {}))
    cut = data.draw(st.integers(0, len(payload) - 1))
    for bad in (payload[:cut], payload + b"x", payload + payload):
        with pytest.raises(ChecksumMismatch):
            form.read_index([bad])


def test_a_large_index_is_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "INDEX_BYTES", 200)
    table = {f"name{number}": Entry(b"x" * 50) for number in range(20)}
    payloads = list(form.index_payloads(Delta(table), {}, {}))
    assert len(payloads) > 4 and dict(form.read_index(payloads).change.put) == table


@pytest.mark.parametrize("sealer", SEALERS)
@settings(deadline=None)
@given(piece=st.binary(max_size=300) | st.builds(bytes, st.integers(0, 100_000)))
def test_a_piece_is_unsealed_as_it_was(sealer: Sealer, piece: bytes) -> None:
    sealed = sealer.seal(piece, b"about")
    assert sealer.unseal(sealed, b"about", len(piece)) == piece
    if piece:
        with pytest.raises(ChecksumMismatch):
            sealer.unseal(sealed, b"about", len(piece) - 1)  # never more than was announced


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_bit_of_an_encrypted_piece_counts(piece: bytes, data: st.DataObject) -> None:
    sealer = SEALERS[1]
    sealed = bytearray(sealer.seal(piece, b"about"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChecksumMismatch):
        sealer.unseal(bytes(sealed), b"about", len(piece))


def test_an_encrypted_piece_is_of_one_place_and_one_key() -> None:
    sealed = SEALERS[1].seal(b"secret secret", b"here")
    assert b"secret" not in sealed
    for sealer, about in ((SEALERS[1], b"there"), (AesSealer(bytes(32), os.urandom), b"here")):
        with pytest.raises(ChecksumMismatch):
            sealer.unseal(sealed, about, 100)


def test_what_bombs_is_stopped_at_what_was_announced() -> None:
    with pytest.raises(ChecksumMismatch):
        PlainSealer().unseal(PlainSealer().seal(bytes(50_000_000), b""), b"", 1000)


def test_keys_are_of_one_repository_and_one_purpose() -> None:
    keys = {derived(KEY, salt, purpose) for salt in (b"a", b"b") for purpose in (b"data", b"names")}
    assert len(keys) == 4 and key_check(KEY, b"a") != key_check(KEY, b"b")


@pytest.mark.parametrize("sealer", SEALERS)
def test_a_manifest_is_read_back_under_its_name_only(sealer: Sealer) -> None:
    data = form.sealed_file(form.MANIFEST, form.manifest(POINT), sealer)
    name = form.point_id(POINT.taken_at, POINT.kind, data)
    assert name.startswith("20261118T") and name.endswith(form.hash_of(data)[:16])
    assert form.read_manifest(name, data, sealer) == replace(POINT, id=name, hash=form.hash_of(data))
    for other in (name.replace("2026", "2027"), name.replace("incremental", "full"), name[:-1] + "x"):
        with pytest.raises(ChecksumMismatch):
            form.read_manifest(other, data, sealer)


@pytest.mark.parametrize("sealer", SEALERS)
@pytest.mark.parametrize("letter", [form.MANIFEST, form.INDEX, form.EVIDENCE])
def test_any_change_of_a_file_is_seen_by_its_name(sealer: Sealer, letter: bytes) -> None:
    data = form.sealed_file(letter, b"payload " * 20, sealer)
    name = form.hash_of(data)
    form.check_hash(data, name, "x")
    changed = [data[:at] for at in range(len(data))] + [data + b"\0"]
    changed += [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for bad in changed:
        with pytest.raises(ChecksumMismatch):
            form.check_hash(bad, name[: form.SHORT], "x")


def test_a_file_of_a_newer_program_or_another_kind_is_named() -> None:
    data = form.sealed_file(form.INDEX, b"x", PlainSealer())
    with pytest.raises(RepositoryNewer, match="update"):
        form.opened_file(form.INDEX, data[:6] + b"\x09" + data[7:], PlainSealer(), "index/x", 10)
    with pytest.raises(ChecksumMismatch, match="another kind"):
        form.opened_file(form.EVIDENCE, data, PlainSealer(), "evidence/x", 10)


def test_any_change_of_the_repositorys_own_file_is_seen() -> None:
    data = form.config_file({"version": 1, "id": "x"})
    assert form.read_config_file(data) == {"version": 1, "id": "x"}
    for at in range(len(data)):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]):
            with pytest.raises(ChecksumMismatch):
                form.read_config_file(bad)
    with pytest.raises(RepositoryNewer):
        form.read_config_file(form.config_file({"version": 99}))


def records(*found: tuple[float, str, dict[str, Any]]) -> Evidence:
    return form.evidence_of([{"at": at, "what": what, "facts": facts} for at, what, facts in found])


def test_later_evidence_counts_over_earlier() -> None:
    assert records() == Evidence()
    corrupt = (5.0, "corrupt", {"why": "a bit"})
    assert records(corrupt).corrupt == "a bit"
    assert records(corrupt, (6.0, "verified", {"depth": "structure"})).corrupt == "a bit"
    assert records(corrupt, (6.0, "verified", {"depth": "data 1/7"})).corrupt == "a bit"
    assert records((6.0, "verified", {"depth": "data"}), corrupt).corrupt == ""
    assert records((1.0, "hold", {"reason": "audit"}), (2.0, "release", {})).hold == ""
    assert records((1.0, "hold", {"reason": ""})).hold == "held"
    assert records((1.0, "drilled", {"passed": False})).drilled_at is None
    assert records((1.0, "drilled", {"passed": True})).drilled_at == 1.0


def test_without_the_package_encryption_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(WrongKey, match="pip install"):
        AesSealer(KEY, os.urandom)
