"""The values an operator writes: durations, sizes, percentages, addresses, URLs, schedules; each parsed once.

One rule: a parser takes the TOML value as it is and gives a plain Python value or raises `ValueError` with the end of
a sentence (`must be …, got …`). What it echoes is cut short, escaped and free of passwords. Nothing here does IO: a
path is checked as text only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

REMEMBERED = 1024  # texts of durations: each default is one, of each table that leaves it out
Network = IPv4Network | IPv6Network
T = TypeVar("T")


class Section(BaseModel):
    """A table of the file: frozen, strict about types, and closed to names it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False, defer_build=True
    )


@dataclass(frozen=True, slots=True)
class ValueKind:
    """What a value is called when keys are listed for people."""

    name: str


def entry(default: Any, description: str) -> Any:
    """One key of a table: its default as the operator would write it (`...` = required), and its help text."""
    # A list would be copied for each table that leaves the key out.
    return Field(tuple(default) if isinstance(default, list) else default, description=description)


def shown(value: object) -> str:
    """A value for an error line: short, on one line, without the userinfo of a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if not isinstance(value, str):
        return str(value)[:60]
    text = re.sub(r"//.*@", "//***@", value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return f'"{text}"' if len(text) <= 60 else f'"{text[:60]}…"'


def _refuse(what: str, value: object) -> ValueError:
    return ValueError(f"must be {what}, got {shown(value)}")


# -- numbers with units ------------------------------------------------------------------------------------------------

_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[wdhms])")
_A_DURATION = 'a duration such as "5s", "250ms" or "1m30s"'
_MAX_SECONDS = 10 * 366 * 86400.0
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_MAX_BYTES = 2**50  # what any machine has, and the kernel and the loop can count
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kKMGT]?i?B)")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")


def parse_duration(value: object) -> float:
    """Seconds of `"250ms"`, `"5s"`, `"1m30s"`, `"1d"`: units from large to small, each at most once."""
    if not isinstance(value, str) or not value:
        raise _refuse(_A_DURATION, value)
    return _seconds(value)


@lru_cache(REMEMBERED)
def _seconds(value: str) -> float:
    at, total, last = 0, 0.0, float("inf")
    while at < len(value):
        part = _DURATION_PART.match(value, at)
        if part is None or _SECONDS[part[2]] >= last:
            raise _refuse(_A_DURATION, value)
        last = _SECONDS[part[2]]
        total += float(part[1]) * last
        at = part.end()
    if total > _MAX_SECONDS:
        raise _refuse("at most ten years", value)
    return round(total, 6)


def parse_timeout(value: object) -> float:
    """A duration above zero."""
    seconds = parse_duration(value)
    if seconds <= 0:
        raise _refuse("more than zero", value)
    return seconds


def parse_size(value: object) -> int:
    """Bytes of `"64KiB"`, `"1.5GiB"`, `"500kB"`; `"0"` needs no unit."""
    if value == "0":
        return 0
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _BYTES:
        raise _refuse('a size such as "64KiB" or "10GiB"', value)
    size = round(float(match[1]) * _BYTES[match[2]]) if "." in match[1] else int(match[1]) * _BYTES[match[2]]
    if size > _MAX_BYTES:
        raise _refuse("at most 1024 TiB", value)
    return size


def parse_positive_size(value: object) -> int:
    """A size above zero."""
    size = parse_size(value)
    if size <= 0:
        raise _refuse("more than zero", value)
    return size


def parse_percent(value: object) -> float:
    """`"20%"` as 0.2."""
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refuse('a percentage such as "20%"', value)
    number = float(match[1])
    if number > 100:
        raise _refuse("between 0% and 100%", value)
    return number / 100


# -- places ------------------------------------------------------------------------------------------------------------

UNIX = "unix"
MAX_UNIX_PATH = 100  # the kernel takes 107; while a socket is replaced, its name is a little longer
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where to listen. `host` has no brackets; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class UnixAddress:
    """A Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True, order=True)
class BackendUrl:
    """Where a backend is reached. `host` is lower case, without brackets; of `unix` it is the socket's path."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host:port`, with brackets round an IPv6 address; a Unix socket has none of its own."""
        return "localhost" if self.scheme == UNIX else str(Address(self.host, self.port))

    @property
    def name(self) -> str:
        """What the backend is called where nobody gave it a name."""
        if self.scheme != UNIX:
            return self.authority
        return f"{UNIX}:" + re.sub(r"[^A-Za-z0-9_.-]", "-", self.host.strip("/"))

    def __str__(self) -> str:
        return f"{UNIX}:{self.host}" if self.scheme == UNIX else f"{self.scheme}://{self.authority}"


def is_host(text: str) -> bool:
    """Whether a text is a DNS name or an IPv4 address; an all-numeric last label must be an address."""
    if text.rpartition(".")[2].isdigit():
        return _is_ip(text, 4)
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


def _is_ip(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def split_authority(text: str, default_port: int | None) -> tuple[str, int] | None:
    """`host:port` or `[v6]:port` as (host, port); None when it is neither. The port may be left out if one is given."""
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::([0-9]{1,5}))?", text)
    if match is None:
        return None
    if match[1] is not None and not _is_ip(match[1], 6):
        return None
    if match[2] is not None and not is_host(match[2]):
        return None
    if match[3] is None:
        return None if default_port is None else ((match[1] or match[2]).lower(), default_port)
    return ((match[1] or match[2]).lower(), int(match[3])) if int(match[3]) < 65536 else None


def parse_address(value: object) -> Address:
    """`"0.0.0.0:8080"`, `"[::]:8080"`, `"localhost:8080"`."""
    found = split_authority(value, None) if isinstance(value, str) else None
    if found is None:
        raise _refuse('an address such as "0.0.0.0:8080" or "[::]:8080"', value)
    return Address(*found)


def parse_unix_path(value: str) -> str:
    """The path in `"unix:/run/edge.sock"`: absolute, so that it means the same wherever the gateway was started."""
    path = value.removeprefix(f"{UNIX}:")
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise _refuse('an absolute path such as "unix:/run/edge.sock"', value)
    if len(path.encode()) > MAX_UNIX_PATH:
        raise _refuse(f"a path of at most {MAX_UNIX_PATH} bytes", value)
    return path


def parse_listen_address(value: object) -> Address | UnixAddress:
    """`"0.0.0.0:8080"`, `"[::]:8080"`, `"unix:/run/edge.sock"`."""
    if isinstance(value, str) and value.startswith(f"{UNIX}:") and not value[len(UNIX) + 1 :].isdigit():
        return UnixAddress(parse_unix_path(value))
    return parse_address(value)


def parse_file_mode(value: object) -> int:
    """`"0660"`: as `chmod` has it, for reading and writing."""
    if not isinstance(value, str) or re.fullmatch("0?[0246]{3}", value) is None:
        raise _refuse('a mode such as "0660", of reading and writing', value)
    return int(value, 8)


def parse_backend_url(value: object) -> BackendUrl:
    """`"http://host:port"`, `"https://host"` or `"unix:/run/app.sock"`: nothing before the host, nothing behind."""
    if isinstance(value, str) and value.startswith(f"{UNIX}:"):
        return BackendUrl(UNIX, parse_unix_path(value), 0)
    match = re.fullmatch(r"(?i:(https?))://([^/?#]*)(.*)", value, re.S) if isinstance(value, str) else None
    if match is None:
        raise _refuse('a URL such as "http://10.0.1.10:8080" or "unix:/run/app.sock"', value)
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise _refuse("a URL without user name and password", value)
    if rest:
        raise _refuse("a URL without path and query (requests keep the client's own)", value)
    found = split_authority(authority, 443 if scheme == "https" else 80)
    if found is None or found[1] == 0:
        raise _refuse("a URL with a host and, if wanted, a port from 1 to 65535", value)
    return BackendUrl(scheme, *found)


def parse_network(value: object) -> Network:
    """`"10.0.0.0/8"`, `"2001:db8::/32"`, or one address."""
    try:
        if isinstance(value, str):
            return ip_network(value)
    except ValueError as error:
        if "host bits" in str(error):
            raise _refuse("a network without host bits set", value) from None
    raise _refuse('a network such as "10.0.0.0/8"', value)


def parse_source(value: object) -> Network | str:
    """A network, or `"unix"`: whoever comes through a Unix socket."""
    return UNIX if value == UNIX else parse_network(value)


def parse_purgers(value: object) -> tuple[Network, ...]:
    """`false` = nobody, `true` = this machine, or a list of networks."""
    if isinstance(value, bool):
        return (ip_network("127.0.0.0/8"), ip_network("::1/128")) if value else ()
    if isinstance(value, list | tuple):
        return tuple(parse_network(item) for item in value)
    raise _refuse('true, false or a list of networks such as ["10.0.0.0/8"]', value)


def parse_host_name(value: object) -> str:
    """`"edge-1.example.com"`: a name without port; lower case."""
    if not isinstance(value, str) or not is_host(value):
        raise _refuse('a host name such as "edge-1.example.com"', value)
    return value.lower()


_PROTOCOL = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?")


def parse_upgrades(value: object) -> tuple[str, ...]:
    """`["websocket"]`, lower case; true is just that and false none. HTTP itself and TLS are never let through."""
    if isinstance(value, bool):
        return ("websocket",) if value else ()
    if not isinstance(value, list | tuple):
        raise _refuse('a list of protocols such as ["websocket"]', value)
    for each in value:
        if not isinstance(each, str) or _PROTOCOL.fullmatch(each) is None:
            raise _refuse('a protocol such as "websocket"', each)
        if each.lower().partition("/")[0] in ("h2", "h2c", "http", "tls"):
            raise ValueError(f"{shown(each)} is never let through: requests inside it would pass by every rule")
    return tuple(each.lower() for each in value)


def parse_workers(value: object) -> int | str:
    """`"auto"` or a number of processes."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise _refuse('"auto" or a whole number from 1 to 256', value)


# -- words -------------------------------------------------------------------------------------------------------------


def _word(pattern: str, what: str) -> Callable[[object], str]:
    compiled = re.compile(pattern)

    def parse(value: object) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise _refuse(what, value)
        return value

    return parse


def _as_tuple(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(value)
    hint = f": write [{shown(value)}]" if isinstance(value, str) else ""
    if isinstance(value, dict):
        hint = " (a list of tables is written [[…]], with two brackets)"
    raise ValueError(f"must be a list, got {shown(value)}{hint}")


Many = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
Duration = Annotated[float, PlainValidator(parse_duration), ValueKind("duration")]
Timeout = Annotated[float, PlainValidator(parse_timeout), ValueKind("duration above 0")]
Size = Annotated[int, PlainValidator(parse_size), ValueKind("size")]
PositiveSize = Annotated[int, PlainValidator(parse_positive_size), ValueKind("size above 0")]
Percent = Annotated[float, PlainValidator(parse_percent), ValueKind("percentage")]
AdminAddress = Annotated[Address, PlainValidator(parse_address), ValueKind("address")]
ListenAddress = Annotated[Address | UnixAddress, PlainValidator(parse_listen_address), ValueKind("address")]
FileMode = Annotated[int, PlainValidator(parse_file_mode), ValueKind("mode")]
Url = Annotated[BackendUrl, PlainValidator(parse_backend_url), ValueKind("URL")]
HostName = Annotated[str, PlainValidator(parse_host_name), ValueKind("host name")]
Cidr = Annotated[Network, PlainValidator(parse_network), ValueKind("network")]
Source = Annotated[Network | str, PlainValidator(parse_source), ValueKind('network or "unix"')]
Purgers = Annotated[tuple[Network, ...], PlainValidator(parse_purgers), ValueKind("true, false or list of networks")]
Upgrades = Annotated[tuple[str, ...], PlainValidator(parse_upgrades), ValueKind("list of protocols, or true or false")]
Workers = Annotated[int | str, PlainValidator(parse_workers), ValueKind('"auto" or whole number')]
Count = Annotated[int, Field(ge=0, le=2**31)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31)]
Weight = Annotated[int, Field(ge=1, le=65535)]
AppName = Annotated[
    str,
    PlainValidator(
        _word(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", 'a name such as "site.edge:app"')
    ),
    ValueKind("module:attribute"),
]
Text = Annotated[str, PlainValidator(_word(r"[^\x00-\x1f\x7f]+", "a text")), ValueKind("text")]
Name = Annotated[
    str,
    PlainValidator(_word(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "a name of letters, digits, dot, dash, underscore")),
    ValueKind("name"),
]
BackendId = Annotated[
    str,
    PlainValidator(_word(r"[A-Za-z0-9\[][A-Za-z0-9_.:\[\]-]{0,254}", "an id of letters, digits, dot, dash, colon")),
    ValueKind("id"),
]
