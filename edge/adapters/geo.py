"""Where an address is, from a MaxMind-format country or city database on disk.

One rule: a bad file changes nothing. `refresh` looks at the file, opens what is new aside, checks that it is a country
or city database, and swaps one reference; a file that is missing, cut or of another kind leaves the old one in place
and warns once. Without any database every place is unknown, with that reason, and a residency fence can refuse.

The file is copied into memory that no name leads to, and the C reader maps that copy: a mapping of the file itself
would kill the process (SIGBUS) when somebody copies a new database over it in place.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import IO, Any

import maxminddb

from edge.balance.geo import ClientPlace, Unknown

LARGEST_BYTES = 1 << 30
KINDS = ("City", "Country", "Enterprise")  # words of a database type whose records have the nested schema

_PRIVATE = ClientPlace(unknown=Unknown.PRIVATE)
_NOT_FOUND = ClientPlace(unknown=Unknown.NOT_FOUND)
_NO_DATABASE = ClientPlace(unknown=Unknown.NO_DATABASE)
_NO_ADDRESS = ClientPlace(unknown=Unknown.NO_ADDRESS)

Address = IPv4Address | IPv6Address
Signature = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PlaceDescription:
    """What the database says about an address, for people; empty where it says nothing."""

    address: str
    place: ClientPlace
    network: str = ""
    country_name: str = ""
    subdivision_name: str = ""
    city_name: str = ""
    continent_name: str = ""
    database: str = ""  # its type


@dataclass(frozen=True, slots=True)
class _Database:
    """An opened copy. The readers let go of it when nobody refers to them any more: a swap closes it under nobody."""

    fast: maxminddb.Reader
    kind: str
    built: int  # epoch seconds


class GeoReader:
    """One database file. `place` is for the request path; `refresh` is for a timer, and may run in a thread.

    `problem` is why the last refresh failed.
    """

    __slots__ = ("_database", "_path", "_seen", "_warn", "failures", "problem")

    def __init__(self, path: str | os.PathLike[str] | None, warn: Callable[[str], None] | None = None) -> None:
        """None: no database, and nothing to warn of."""
        self._path = Path(path) if path is not None else None
        self._warn = warn if warn is not None else logging.getLogger("edge.geo").warning
        self._database: _Database | None = None
        self._seen: Signature | str = ""  # what the last refresh looked at
        self.failures = 0  # refreshes that found a bad file
        self.problem = ""
        self.refresh()

    @property
    def built(self) -> int | None:
        """When the data was made, in epoch seconds; None without a database."""
        return self._database.built if self._database is not None else None

    def age_s(self, now: float) -> float | None:
        """The data's age at the wall clock's `now`; None without a database."""
        return max(0.0, now - self._database.built) if self._database is not None else None

    def place(self, ip_text: str) -> ClientPlace:
        """Where a client's address is (one that `http.forwarding` took, so its form is proven). Never raises."""
        database = self._database
        if database is None:
            return _NO_DATABASE
        # The text goes to the C reader as it is: parsing it here would double the cost of a look-up that succeeds.
        return self._look_up(database, ip_text) or self._second_look(database, ip_text)

    def _look_up(self, database: _Database, ip_text: str) -> ClientPlace | None:
        try:
            return _place_of(database.fast.get(ip_text))
        except (maxminddb.InvalidDatabaseError, ValueError):  # damaged; no address, or a v6 one in a v4 database
            pass
        return None

    def _second_look(self, database: _Database, ip_text: str) -> ClientPlace:
        """An IPv4-mapped address, or why there is no place.

        Private is judged after asking: an operator's own database may well place private networks.
        """
        address = _parsed(ip_text)
        if address is None:
            return _NO_ADDRESS
        plain = str(address)
        found = self._look_up(database, plain) if plain != ip_text else None
        return found or (_NOT_FOUND if address.is_global else _PRIVATE)

    def describe(self, ip_text: str) -> PlaceDescription:
        """As `place`, for people: with names and the network."""
        place, database = self.place(ip_text), self._database
        address = _parsed(ip_text)
        if database is None or address is None:
            return PlaceDescription(ip_text, place)
        from geoip2.models import City  # not cheap, and of no use to a request

        try:
            record, bits = database.fast.get_with_prefix_len(str(address))
            if not isinstance(record, dict):
                raise ValueError("it is in no network of the database")
            answer = City(("en",), ip_address=str(address), prefix_len=bits, **record)
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, AttributeError):
            return PlaceDescription(str(address), place, database=database.kind)
        return PlaceDescription(
            address=str(address),
            place=place,
            network=str(answer.traits.network or ""),
            country_name=answer.country.name or "",
            subdivision_name=(answer.subdivisions[0].name or "") if answer.subdivisions else "",
            city_name=answer.city.name or "",
            continent_name=answer.continent.name or "",
            database=database.kind,
        )

    def refresh(self) -> bool:
        """Look at the file; whether a new database is in use now. Looks no further if the file is what it was."""
        if self._path is None:
            return False
        signature = _signature(self._path)
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            fresh = _opened(self._path)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            self.failures += 1
            self.problem = f"{self._path}: {_why(error)}"
            kept = "the old one stays in use" if self._database is not None else "clients' places are unknown"
            self._warn(f"GeoIP database {self.problem}; {kept}")
            return False
        self._database = fresh
        self.problem = ""
        return True


def _signature(path: Path) -> Signature | str:
    try:
        found = path.stat()
    except OSError as error:
        return error.strerror or "cannot be read"
    return found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns


def _opened(path: Path) -> _Database:
    """Open a copy and check it. OSError, ValueError or InvalidDatabaseError if it cannot be used."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
            raise ValueError("not a regular file of at most 1 GiB")
        content = source.read()
    with _nameless() as copy:
        copy.write(content)
        copy.flush()
        name = copy.name if isinstance(copy.name, str) else f"/proc/self/fd/{copy.fileno()}"
        fast = maxminddb.open_database(name)
    kind = fast.metadata().database_type
    if not any(word in kind for word in KINDS):
        raise ValueError(f"is of type {kind!r}, not a country or city database")
    _, record = next(iter(fast), (None, None))
    if not isinstance(record, dict) or not isinstance(record.get("country", record.get("continent")), dict):
        raise ValueError("its records are not in MaxMind's nested schema")
    return _Database(fast, kind, fast.metadata().build_epoch)


def _nameless() -> IO[bytes]:
    """A file in memory; where the system has none, a temporary one that is gone when closed."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("edge-geoip", os.MFD_CLOEXEC), "w+b")
    return tempfile.NamedTemporaryFile()  # the caller closes it


def _parsed(text: str) -> Address | None:
    """The address, without zone; an IPv4-mapped one as IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _place_of(record: Any) -> ClientPlace | None:
    """The facts of a record of the nested schema; None if it says neither country nor continent."""
    if not isinstance(record, dict):
        return None
    country: str = record.get("country", _EMPTY).get("iso_code", "")
    continent: str = record.get("continent", _EMPTY).get("code", "")
    if not country and not continent:
        return None
    location = record.get("location", _EMPTY)
    parts = record.get("subdivisions")
    part = parts[0].get("iso_code", "") if parts else ""  # the largest part comes first
    subdivision = f"{country}-{part}" if part else ""
    return ClientPlace(country, subdivision, continent, location.get("latitude"), location.get("longitude"))


_EMPTY: dict[str, Any] = {}


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    if isinstance(error, maxminddb.InvalidDatabaseError):
        return "is not a whole MaxMind database"
    return str(error)
