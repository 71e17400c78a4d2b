"""A repository as recovery points: which there are, what is known of them, and their tables and bodies.

Everything is read in the opposite order of writing: manifest, then index, then packs; and each thing is compared with
the name or the digest that the one before gave for it before anything in it is believed.

One rule: a damaged file is one point's misfortune. Listing never fails over it; the point is shown as corrupt, and
whoever needs the point is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from edge.errors import ChecksumMismatch, NoRecoveryPoint, RepositoryNewer, WrongKey
from edge.ports import Repository
from edge.recovery import format as form
from edge.recovery.format import BodyPlace, PointIndex
from edge.recovery.points import Evidence, Point, PointKind, StoredFile, closure
from edge.recovery.seal import AesSealer, PlainSealer, Sealer, derived, key_check
from edge.recovery.table import Table, apply, digest

CONFIG = "config"
MAX_EVIDENCE_BYTES = 4 * 1024 * 1024


class Vault:
    """An open repository. Blocking; belongs to one thread."""

    def __init__(self, repository: Repository, sealer: Sealer) -> None:
        self.repository = repository
        self.sealer = sealer
        self._manifests: dict[str, Point] = {}  # they never change

    @classmethod
    def open(cls, repository: Repository, key: bytes | None, random: Callable[[int], bytes], make: bool) -> Vault:
        """Open it; `make` makes it when it is empty. Raises WrongKey, RepositoryNewer, NoRecoveryPoint."""
        data = repository.get(CONFIG)
        if data is None:
            if any(True for _ in repository.files("points/")):
                raise ChecksumMismatch(f"{repository.place}: its file `config` is missing: put it back")
            if not make:
                raise NoRecoveryPoint(f"{repository.place} holds no recovery points: `edge snapshot take` takes one")
            repository.create(CONFIG, _fresh_config(key, random))
            data = repository.get(CONFIG) or b""
        return cls(repository, _sealer(form.read_config_file(data), key, random, repository.place))

    def remember(self, other: Vault) -> None:
        """Reuse the manifests that another vault of the same repository has read: they never change."""
        self._manifests = other._manifests

    # -- points ----------------------------------------------------------------------------------------------------

    def points(self) -> dict[str, Point]:
        """All points by id, with what is known of each. Raises RepositoryNewer when one is of a newer program."""
        found: dict[str, Point] = {}
        evidence = self._evidence()
        for file in self.repository.files("points/"):
            name = file.name.removeprefix("points/")
            point = self._manifest(name)
            if point is not None:
                known = evidence.get(name, Evidence())
                found[name] = point.with_evidence(known) if not point.evidence.corrupt else point
        return found

    def _manifest(self, name: str) -> Point | None:
        known = self._manifests.get(name)
        if known is not None:
            return known
        data = self.repository.get(f"points/{name}")
        if data is None:
            return None  # deleted since it was listed
        try:
            point = self._manifests[name] = form.read_manifest(name, data, self.sealer)
        except ChecksumMismatch as error:
            return unreadable(name, error.detail)
        return point

    def publish(self, point: Point) -> Point:
        """Write a point's manifest, after which the point exists; the point with its id."""
        data = form.sealed_file(form.MANIFEST, form.manifest(point), self.sealer)
        name = form.point_id(point.taken_at, point.kind, data)
        self.repository.put(f"points/{name}", data)
        published = form.read_manifest(name, self.repository.get(f"points/{name}") or b"", self.sealer)
        self._manifests[name] = published
        return published

    # -- evidence --------------------------------------------------------------------------------------------------

    def _evidence(self) -> dict[str, Evidence]:
        records: dict[str, list[Mapping[str, Any]]] = {}
        for file in self.repository.files("evidence/"):
            point = file.name.split("/")[1]
            data = self.repository.get(file.name)
            if data is not None:
                records.setdefault(point, []).append(self._record(file.name, data))
        return {point: form.evidence_of(found) for point, found in records.items()}

    def _record(self, name: str, data: bytes) -> Mapping[str, Any]:
        """One record. A damaged one may have been a hold: it counts as one."""
        try:
            form.check_hash(data, name.rpartition("-")[2], name)
            payload = form.opened_file(form.EVIDENCE, data, self.sealer, name, MAX_EVIDENCE_BYTES)
            record: Mapping[str, Any] = orjson.loads(payload)
            return record
        except (ChecksumMismatch, ValueError):
            return {"at": 0.0, "what": "hold", "facts": {"reason": f"{name} is damaged and may have been a hold"}}

    def note(self, point: str, at: float, what: str, facts: Mapping[str, Any]) -> None:
        """Store what was found out about a point, then drop what that replaces."""
        kind = "hold" if what == "release" else what
        before = [file.name for file in self.repository.files(f"evidence/{point}/{kind}/")]
        payload = form.evidence_payload(at, what, facts)
        data = form.sealed_file(form.EVIDENCE, payload, self.sealer)
        name = f"evidence/{point}/{kind}/{int(at * 1000)}-{form.hash_of(data)[: form.SHORT]}"
        self.repository.put(name, data)
        for each in before:
            if each != name:
                self.repository.delete(each)

    def packs(self) -> dict[bytes, int]:
        """The packs that are there, with their sizes."""
        found = {file.name.removeprefix("packs/"): file.size for file in self.repository.files("packs/")}
        return {bytes.fromhex(name): size for name, size in found.items() if is_hash(name)}

    # -- tables and bodies -----------------------------------------------------------------------------------------

    def index(self, point: Point) -> PointIndex:
        """The entries that a point itself carries. Raises ChecksumMismatch when a file does not match the manifest."""
        return form.read_index(self._index_payload(file) for file in point.index)

    def _index_payload(self, file: StoredFile) -> bytes:
        name = f"index/{file.name}"
        data = self.file(name, file)
        return form.opened_file(form.INDEX, data, self.sealer, name, form.MAX_INDEX_BYTES)

    def file(self, name: str, file: StoredFile) -> bytes:
        """A file's bytes, compared with its name. Raises ChecksumMismatch."""
        data = self.repository.get(name)
        if data is None:
            raise ChecksumMismatch(f"{name} is missing: restore a point that does not need it, and take a full one")
        form.check_hash(data, file.name, name)
        return data

    def table(self, points: Mapping[str, Point], wanted: str) -> tuple[Table, dict[bytes, BodyPlace]]:
        """The whole table of a point, and where its bodies are. Raises ChainBroken, ChecksumMismatch."""
        table: Table = {}
        places: dict[bytes, BodyPlace] = {}
        chain = closure(points, wanted)
        for point in chain:
            found = self.index(point)
            apply(table, found.change)
            places.update(found.places)
        if digest(table) != chain[-1].digest:
            raise ChecksumMismatch(f"point {wanted}: its parts do not make up what was taken: restore an older point")
        return table, places

    def body(self, blob: bytes, place: BodyPlace) -> bytes:
        """A body, compared with its id. Raises ChecksumMismatch."""
        name = f"packs/{place.pack.hex()}"
        sealed = self.repository.read(name, place.offset, place.stored)
        if sealed is None or len(sealed) != place.stored:
            raise ChecksumMismatch(f"{name} is missing or cut: restore a point that does not need it")
        return self.unsealed(blob, place, sealed)

    def unsealed(self, blob: bytes, place: BodyPlace, sealed: bytes) -> bytes:
        """A body from its stored bytes. Raises ChecksumMismatch."""
        body = self.sealer.unseal(sealed, blob, place.size)
        if len(body) != place.size or sha256(body).digest() != blob:
            raise ChecksumMismatch(f"packs/{place.pack.hex()}: a body in it was changed: verify the point")
        return body

    def bodies(self, places: Mapping[bytes, BodyPlace]) -> Iterator[tuple[bytes, bytes]]:
        """Many bodies, each pack read once and in order. Raises ChecksumMismatch.

        A pack's bodies are unsealed and compared by two threads (neither needs the interpreter), and the next pack is
        read meanwhile.
        """
        by_pack: dict[bytes, list[tuple[int, bytes]]] = {}
        for blob, place in places.items():
            by_pack.setdefault(place.pack, []).append((place.offset, blob))
        with ThreadPoolExecutor(2, "unseal") as threads, ThreadPoolExecutor(1, "read") as reader:
            names = [f"packs/{pack.hex()}" for pack in by_pack]
            reading = deque(reader.submit(self.repository.get, name) for name in names[:1])
            for number, (name, held) in enumerate(zip(names, by_pack.values(), strict=True)):
                data = reading.popleft().result()
                reading.extend(reader.submit(self.repository.get, name) for name in names[number + 1 : number + 2])
                if data is None:
                    raise ChecksumMismatch(f"{name} is missing: restore a point that does not need it")
                whole = memoryview(data)

                def unsealed(blob: bytes, whole: memoryview = whole) -> tuple[bytes, bytes]:
                    place = places[blob]
                    return blob, self.unsealed(blob, place, bytes(whole[place.offset : place.offset + place.stored]))

                yield from threads.map(unsealed, [blob for _, blob in sorted(held)])


def is_hash(name: str) -> bool:
    """Whether a file has a name that we give; anything else in the folder is not ours."""
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def unreadable(name: str, why: str) -> Point:
    """A point whose manifest is damaged: all that its name tells."""
    try:
        stamp, word, _ = name.split("-")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        kind = PointKind(word)
    except ValueError:
        at, kind = 0.0, PointKind.INCREMENTAL
    return Point(name, "", kind, at, "", 0, 0, evidence=Evidence(corrupt=why))


def _fresh_config(key: bytes | None, random: Callable[[int], bytes]) -> bytes:
    salt = random(16)
    return form.config_file(
        {
            "version": form.VERSION,
            "id": random(8).hex(),
            "salt": salt.hex(),
            "encrypted": key is not None,
            "key_check": None if key is None else key_check(key, salt),
        }
    )


def _sealer(config: Mapping[str, Any], key: bytes | None, random: Callable[[int], bytes], place: str) -> Sealer:
    try:
        encrypted, salt, check = config["encrypted"], bytes.fromhex(config["salt"]), config["key_check"]
    except (KeyError, ValueError, TypeError):
        raise RepositoryNewer(f"{place}: its file `config` lacks what this program needs: update it") from None
    if not encrypted:
        if key is not None:
            raise WrongKey(
                f"{place} is not encrypted, and a key is given: take snapshots.encryption_key_file away, "
                f"or begin an encrypted repository at another place"
            )
        return PlainSealer()
    if key is None:
        raise WrongKey(f"{place} is encrypted: give its key with snapshots.encryption_key_file or --key-file")
    if key_check(key, salt) != check:
        raise WrongKey(f"the key is not that of {place}: find the one that it was made with")
    return AesSealer(derived(key, salt, b"edge recovery: data"), random)
