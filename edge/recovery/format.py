"""The repository's bytes. All numbers are big-endian; README.md of this package tells how the files are used.

    config                    one JSON line, then its SHA-256 in hex
    points/<time>-<kind>-<h>  HEAD "M" | sealed manifest (JSON)         h = first 16 hex digits of the file's SHA-256
    index/<h>                 HEAD "I" | sealed records                 h = SHA-256 of the file's bytes
    packs/<h>                 HEAD "P" | sealed bodies, end to end      h = SHA-256 of the file's bytes
    evidence/<point>/<t>-<h>  HEAD "E" | sealed evidence (JSON)         h = first 16 hex digits of the file's SHA-256
    HEAD                      "EDGERP" | version (1 byte) | letter (1 byte)

    index records             0x01 | name | data | blob (32 bytes, or none)      an entry that is new or other
                              0x02 | name                                        an entry that is gone
                              0x03 | pack (32) | size (8) | count (4) | count × place
                              0x00 | number of records before (8)                the end; nothing follows it
    place                     body id (32) | offset (8) | stored bytes (8) | body bytes (8)
    name, data                length (4) | bytes
    blob                      0x00, or 0x01 | body id (32) | body bytes (8)

One rule: a file that was changed, cut, lengthened or moved to another name is never read as if it were whole. Names
are hashes of the stored bytes, in every version to come, so that a repository can be checked without its key and by an
older program, which then tells a newer version from a damaged byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from edge.errors import ChecksumMismatch, RepositoryNewer
from edge.recovery.points import Evidence, Point, PointKind, StoredFile
from edge.recovery.seal import Sealer
from edge.recovery.table import BLOB_ID_BYTES, Delta, Entry

MAGIC = b"EDGERP"
VERSION = 1
MANIFEST, INDEX, PACK, EVIDENCE = b"M", b"I", b"P", b"E"
HEAD_BYTES = len(MAGIC) + 2
SHORT = 16  # hex digits of a hash in a name that people type
INDEX_BYTES = 4 * 1024 * 1024  # of records in one index file, before sealing
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_INDEX_BYTES = 256 * 1024 * 1024  # one record may be long: the data of an entry

_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_PLACE = struct.Struct(">32sQQQ")
_PACK_RECORD = struct.Struct(">32sQI")


@dataclass(frozen=True, slots=True)
class BodyPlace:
    """Where a body lies in the repository."""

    pack: bytes
    offset: int
    stored: int
    size: int


@dataclass(slots=True)
class PointIndex:
    """What the index files of a point hold together."""

    change: Delta = field(default_factory=Delta)
    places: dict[bytes, BodyPlace] = field(default_factory=dict)


# -- files -------------------------------------------------------------------------------------------------------------


def head(letter: bytes) -> bytes:
    """The first bytes of a file of this kind."""
    return MAGIC + bytes([VERSION]) + letter


def check_head(data: bytes, letter: bytes, name: str) -> None:
    """Check the first bytes of a file. Raises ChecksumMismatch, or RepositoryNewer for a later version's format."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise ChecksumMismatch(f"{name} is no file of a recovery point, or was cut: verify the point")
    if data[len(MAGIC)] > VERSION:
        raise RepositoryNewer(f"{name} has format version {data[len(MAGIC)]}, this program knows {VERSION}: update it")
    if data[:HEAD_BYTES] != head(letter):
        raise ChecksumMismatch(f"{name} is a file of another kind: verify the point")


def sealed_file(letter: bytes, payload: bytes, sealer: Sealer) -> bytes:
    """A whole file of one piece, sealed."""
    return head(letter) + sealer.seal(payload, head(letter))


def opened_file(letter: bytes, data: bytes, sealer: Sealer, name: str, most: int) -> bytes:
    """The payload of a file whose hash was compared already. Raises ChecksumMismatch, RepositoryNewer."""
    check_head(data, letter, name)
    return sealer.unseal(data[HEAD_BYTES:], head(letter), most)


def hash_of(data: bytes) -> str:
    """The SHA-256 that names a file."""
    return sha256(data).hexdigest()


def check_hash(data: bytes, wanted: str, name: str) -> None:
    """Check that the bytes are those that were written. Raises ChecksumMismatch."""
    if hash_of(data)[: len(wanted)] != wanted:
        raise ChecksumMismatch(f"{name}: its bytes are not those that were written; restore a point without it")


def config_file(values: Mapping[str, Any]) -> bytes:
    """The bytes of the repository's own file."""
    line = orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS) + b"\n"
    return line + sha256(line).hexdigest().encode() + b"\n"


def read_config_file(data: bytes) -> dict[str, Any]:
    """The values of the repository's own file. Raises ChecksumMismatch, RepositoryNewer."""
    line, _, rest = data.partition(b"\n")
    if rest != sha256(line + b"\n").hexdigest().encode() + b"\n":
        raise ChecksumMismatch("the repository's file `config` was changed or cut: put it back from another copy")
    found: dict[str, Any] = orjson.loads(line)
    if found.get("version", 0) > VERSION:
        raise RepositoryNewer(f"the repository has format version {found['version']}, this program knows {VERSION}")
    return found


# -- index files -------------------------------------------------------------------------------------------------------


def index_payloads(change: Delta, places: Mapping[bytes, BodyPlace], sizes: Mapping[bytes, int]) -> Iterator[bytes]:
    """The payloads of as many index files as it takes; at least one. `sizes` are the packs'."""
    buffer, count = bytearray(), 0
    for record in _records(change, places, sizes):
        buffer += record
        count += 1
        if len(buffer) >= INDEX_BYTES:
            yield bytes(buffer) + b"\x00" + _U64.pack(count)
            buffer, count = bytearray(), 0
    yield bytes(buffer) + b"\x00" + _U64.pack(count)


def _records(change: Delta, places: Mapping[bytes, BodyPlace], sizes: Mapping[bytes, int]) -> Iterator[bytes]:
    for name in sorted(change.put):
        entry = change.put[name]
        blob = b"\x01" + entry.blob + _U64.pack(entry.size) if entry.blob else b"\x00"
        yield b"\x01" + _long(name.encode()) + _long(entry.data) + blob
    for name in change.removed:
        yield b"\x02" + _long(name.encode())
    by_pack: dict[bytes, list[tuple[bytes, BodyPlace]]] = {}
    for blob, place in sorted(places.items()):
        by_pack.setdefault(place.pack, []).append((blob, place))
    for pack, held in sorted(by_pack.items()):
        rows = b"".join(_PLACE.pack(blob, at.offset, at.stored, at.size) for blob, at in held)
        yield b"\x03" + _PACK_RECORD.pack(pack, sizes[pack], len(held)) + rows


def _long(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


def read_index(payloads: Iterable[bytes]) -> PointIndex:
    """All index files of a point, in order. Raises ChecksumMismatch."""
    put: dict[str, Entry] = {}
    removed: list[str] = []
    found = PointIndex()
    for payload in payloads:
        try:
            _read_payload(payload, put, removed, found.places)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise ChecksumMismatch(f"an index file is not as it was written ({error}): verify the point") from None
    found.change = Delta(put, tuple(removed))
    return found


def _read_payload(payload: bytes, put: dict[str, Entry], removed: list[str], places: dict[bytes, BodyPlace]) -> None:
    at, count = 0, 0

    def taken(length: int) -> bytes:
        nonlocal at
        piece = payload[at : at + length]
        if len(piece) != length:
            raise ValueError("it is cut")
        at += length
        return piece

    while (tag := taken(1)) != b"\x00":
        count += 1
        if tag == b"\x01":
            name, data = taken(*_U32.unpack(taken(4))).decode(), taken(*_U32.unpack(taken(4)))
            blob = taken(BLOB_ID_BYTES) if taken(1) == b"\x01" else b""
            put[name] = Entry(data, blob, _U64.unpack(taken(8))[0] if blob else 0)
        elif tag == b"\x02":
            removed.append(taken(*_U32.unpack(taken(4))).decode())
        elif tag == b"\x03":
            pack, _, held = _PACK_RECORD.unpack(taken(_PACK_RECORD.size))
            for blob, offset, stored, size in _PLACE.iter_unpack(taken(held * _PLACE.size)):
                places[blob] = BodyPlace(pack, offset, stored, size)
        else:
            raise ValueError(f"record of kind {tag!r}")
    if _U64.unpack(taken(8))[0] != count or at != len(payload):
        raise ValueError("its end is not where it should be")


# -- manifests and evidence --------------------------------------------------------------------------------------------


def point_id(taken_at: float, kind: PointKind, data: bytes) -> str:
    """A point's id: sorted by time, typed by people, and bound to the manifest's bytes."""
    stamp = datetime.fromtimestamp(taken_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{kind.value}-{hash_of(data)[:SHORT]}"


def manifest(point: Point) -> bytes:
    """The manifest's payload. Id, hash and evidence are not in it."""
    values = {name: getattr(point, name) for name in _PLAIN}
    values |= {name: list(getattr(point, name)) for name in ("needs", "left_out")}
    values |= {name: [[each.name, each.size] for each in getattr(point, name)] for name in ("index", "packs")}
    return orjson.dumps({**values, "kind": point.kind.value}, option=orjson.OPT_SORT_KEYS)


_PLAIN = (
    *("taken_at", "history", "sequence_from", "sequence_to", "parent", "parent_hash", "config_hash", "schema_version"),
    *("program", "source", "digest", "entries", "bodies", "body_bytes", "written", "promoted"),
)


def read_manifest(name: str, data: bytes, sealer: Sealer) -> Point:
    """A point from its manifest's bytes, under the name that it has. Raises ChecksumMismatch, RepositoryNewer."""
    check_hash(data, name.rpartition("-")[2], f"points/{name}")  # before the version is believed
    payload = opened_file(MANIFEST, data, sealer, f"points/{name}", MAX_MANIFEST_BYTES)
    try:
        found = orjson.loads(payload)
        point = Point(
            id=name,
            hash=hash_of(data),
            kind=PointKind(found["kind"]),
            needs=tuple(found["needs"]),
            left_out=tuple(found["left_out"]),
            index=tuple(StoredFile(*each) for each in found["index"]),
            packs=tuple(StoredFile(*each) for each in found["packs"]),
            **{key: found[key] for key in _PLAIN},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ChecksumMismatch(f"points/{name}: its manifest lacks something ({error}): take a full point") from None
    if point_id(point.taken_at, point.kind, data) != name:
        raise ChecksumMismatch(f"points/{name}: it was moved to another name: put it back")
    return point


def evidence_payload(at: float, what: str, facts: Mapping[str, Any]) -> bytes:
    """A record about a point: verified, drilled, corrupt, hold or release."""
    return orjson.dumps({"at": at, "what": what, "facts": dict(facts)}, option=orjson.OPT_SORT_KEYS)


def evidence_of(records: Iterable[Mapping[str, Any]]) -> Evidence:
    """The evidence of all records of a point; a later record replaces an earlier one of its kind."""
    values: dict[str, Any] = {}
    for record in sorted(records, key=lambda each: float(each["at"])):
        what, at, facts = record["what"], float(record["at"]), record["facts"]
        if what == "verified":
            values |= {"verified_at": at, "verified": facts.get("depth", "")}
            if facts.get("depth") in ("data", "load"):
                values["corrupt"] = ""  # every byte was looked at again
        elif what == "drilled":
            values |= {"drill": facts}
            if facts.get("passed"):
                values["drilled_at"] = at
        elif what == "corrupt":
            values["corrupt"] = str(facts.get("why", "damaged"))
        elif what in ("hold", "release"):
            values["hold"] = str(facts.get("reason") or "held") if what == "hold" else ""
    return Evidence(**values)
