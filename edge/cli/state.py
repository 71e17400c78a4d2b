"""The state as points hold it: the journal, the configuration with the files that it names, and what is wired to it.

One rule: nothing secret goes into a repository that is not encrypted. Private keys, password files and tokens are left
out there and the point says so; a password inside the configuration itself ends the taking with an error.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import orjson

from edge.adapters.config_files import sources_of
from edge.config.acme import FOLDER
from edge.config.loader import Config, load
from edge.config.paths import written
from edge.config.types import Section, ValueKind
from edge.control.journal import Journal
from edge.control.preflight_snapshots import PASSWORD
from edge.control.recovered import JOURNAL_FILE, Origin, Snapshot, compare, first_change_after, position, rebuild
from edge.errors import ChecksumMismatch, ConfigError, SecretInTheClear
from edge.recovery.points import Point
from edge.recovery.table import Entry, Table
from edge.sidecar.source import Captured, Rebuilt

FILES = "files/"
CONFIG_NAME = "machine/config"
MAX_FILE_BYTES = 64 * 1024 * 1024
RESTORED = "restored"  # the folder in a state directory where the configuration and its files are put
OUTPUTS = ("state.path", "log.access", "cache.disk.path", "snapshots.runbooks")  # named, and not ours to carry
NEVER = ("snapshots.encryption_key_file",)  # the key is outside of what it encrypts, always
URL = re.compile(r"[a-z]+://")
_SECRET = re.compile(r"key|token|password|secret|basic|htpasswd", re.IGNORECASE)


class LocalState:
    """`sidecar.source.State` of a state directory. Without a configuration it can only be restored to."""

    def __init__(
        self,
        folder: Path,
        encrypted: bool,
        config: Config | None = None,
        filename: str = "config.toml",
    ) -> None:
        self._folder, self._encrypted, self._config, self._filename = folder, encrypted, config, filename

    def capture(self, extra: Mapping[str, bytes]) -> Captured:
        """As `sidecar.source.State` says."""
        found = Snapshot(self._folder / JOURNAL_FILE)
        left_out: list[str] = []
        if self._config is not None:
            self._check_text(found)
            left_out = [*self._add_files(found), *self._add_certificates(found)]
        found.add(CONFIG_NAME, orjson.dumps({"name": Path(self._filename).name}))
        for name, value in extra.items():
            found.add(name, value)
        return Captured(
            history=found.history,
            sequence=found.sequence,
            taken_at=found.taken_at,
            table=found.table,
            body=found.bodies.get,
            config_hash=found.config_hash,
            schema_version=found.version,
            left_out=tuple(left_out),
        )

    def _check_text(self, found: Snapshot) -> None:
        if not self._encrypted and any(PASSWORD.search(text) for text in found.texts):
            raise SecretInTheClear(
                "the configuration holds a password, and the repository is not encrypted: give "
                "snapshots.encryption_key_file, or take the password from the environment"
            )

    def _add_files(self, found: Snapshot) -> Iterator[str]:
        assert self._config is not None
        for key, path in named_files(self._config):
            if key in NEVER or key in OUTPUTS or URL.match(path):
                continue
            if not self._encrypted and _SECRET.search(key):
                yield f"{key}: {path} is a secret, and the repository is not encrypted"
                continue
            try:
                data = Path(path).read_bytes()
            except FileNotFoundError:
                continue  # it is not needed now (a default's), or `edge check` names it
            except OSError as error:
                yield f"{key}: {path}: {error.strerror}"
                continue
            if len(data) > MAX_FILE_BYTES:
                yield f"{key}: {path} has more than {MAX_FILE_BYTES} bytes"
                continue
            found.add(f"{FILES}{written(path)}", data)

    def _add_certificates(self, found: Snapshot) -> Iterator[str]:
        """Those that ACME gave, with their account: a restored machine need not ask for all of them anew."""
        kept = certificates_in(self._folder)
        if kept and not self._encrypted:
            yield f"{FOLDER}: the certificates by ACME are secrets, and the repository is not encrypted"
            return
        for name, data in kept.items():
            found.add(name, data)

    def rebuild(
        self, point: Point, table: Table, body: Callable[[Entry], bytes], folder: Path, survivor: Path | None
    ) -> Rebuilt:
        """As `sidecar.source.State` says."""
        old = None if survivor is None else survivor / JOURNAL_FILE
        made = rebuild(folder / JOURNAL_FILE, table, body, Origin(point.id, point.history, old))
        home = folder / RESTORED
        home.mkdir()
        text, included = newest_config(table, body)
        name = str(orjson.loads(table[CONFIG_NAME].data)["name"]) if CONFIG_NAME in table else "config.toml"
        for path, data in (*included.items(), *(((name, text),) if text is not None else ())):
            write_below(home, path, data.encode())
        for entry_name, entry in table.items():
            if entry_name.startswith(FILES):
                write_below(home, entry_name.removeprefix(FILES), body(entry) if entry.blob else entry.data)
        given = {name: body(entry) if entry.blob else entry.data for name, entry in table.items() if is_given(name)}
        for path, data in {**given, **certificates_in(survivor)}.items():  # those that are there are newer
            write_below(folder, path, data)
        return Rebuilt(
            history=str(made["history"]),
            sequence=int(made["sequence"]),
            config=text,
            config_name=name,
            purge_number=int(made["purge_number"]),
            purges_replayed=int(made["purges_replayed"]),
            gap=bool(made["gap"]),
        )

    def load(self, folder: Path, table: Table) -> None:
        """As `sidecar.source.State` says."""
        Journal.open(folder / JOURNAL_FILE).close()
        wrong = list(compare(folder / JOURNAL_FILE, table))
        if wrong:
            raise ChecksumMismatch(f"what was rebuilt is not what the point holds: {wrong[0]}; restore an older point")

    def unsaved_since(self, history: str, sequence: int) -> float | None:
        """As `sidecar.source.State` says."""
        return first_change_after(self._folder / JOURNAL_FILE, history, sequence)

    def now(self) -> tuple[str, int]:
        """As `sidecar.source.State` says."""
        return position(self._folder / JOURNAL_FILE)


def is_given(name: str) -> bool:
    """Whether an entry is a certificate by ACME, or its account."""
    return name.startswith(f"{FOLDER}/")


def certificates_in(state: Path | None) -> dict[str, bytes]:
    """Certificates by ACME and their accounts in a state directory, by their names below it."""
    found: dict[str, bytes] = {}
    if state is None:
        return found
    for path in sorted(state.glob(f"{FOLDER}/*/*")):
        if path.suffix in (".pem", ".json") and path.is_file():
            found[path.relative_to(state).as_posix()] = path.read_bytes()
    return found


def accepted(folder: Path, rebuilt: Rebuilt) -> list[str]:
    """What this program has against a restored configuration, one line each; nothing when it would start with it."""
    if rebuilt.config is None:
        return ["the point holds no configuration: the gateway was not started once before it was taken"]
    try:
        load(sources_of(folder / RESTORED / rebuilt.config_name))
    except ConfigError as error:
        return error.problems
    return []


def newest_config(table: Table, body: Callable[[Entry], bytes]) -> tuple[str | None, dict[str, str]]:
    """The text of the newest accepted configuration, and the texts that it includes."""
    names = [name for name in table if name.startswith("journal/revisions/")]
    if not names:
        return None, {}
    entry = table[max(names)]
    row = orjson.loads(body(entry) if entry.blob else entry.data)
    return str(row[3]), dict(orjson.loads(row[4]))


def write_below(home: Path, name: str, data: bytes) -> None:
    """A file below a folder, whatever its name says: nothing outside is ever written."""
    parts = [part for part in Path(name).parts if part not in ("..", "/")]
    path = home.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


def named_files(section: Section, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The files that a configuration names: (key without numbers and names of tables, path)."""
    for name, field in type(section).model_fields.items():
        yield from _paths(f"{prefix}{name}", getattr(section, name), _is_path(field.annotation, field.metadata))


def _paths(key: str, value: Any, is_path: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, Section):
        yield from named_files(value, f"{key}.")
    elif isinstance(value, dict):
        for each in value.values():
            yield from _paths(key, each, is_path)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths(key, each, is_path)
    elif is_path and isinstance(value, str):
        yield key, value


def _is_path(annotation: Any, metadata: list[Any]) -> bool:
    if any(isinstance(each, ValueKind) and each.name in ("path", "URL or path") for each in metadata):
        return True
    args = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _is_path(args[0], list(args[1:]))
    return any(_is_path(arg, []) for arg in args)


def wall() -> float:
    """The time in seconds since the epoch."""
    return time.time()
