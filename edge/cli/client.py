"""The commands' way to the admin API: where it is, the token, one request, and how answers are shown.

One rule: a failure is one clear line on standard error and exit code 1. Where the API is: `--admin` and `--token-file`,
else the environment (EDGE_ADMIN, EDGE_TOKEN), else the configuration file given by `-c`, else `config.toml` when it is
there, else 127.0.0.1:9900 and var/admin.token.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import click
import orjson

from edge.adapters.config_files import ENCODING, sources_of, why_unread
from edge.cli.admin_target import AdminTarget
from edge.cli.text import safe as safe  # for commands, which have the rest from here
from edge.config.loader import Admin as AdminTable
from edge.config.loader import load
from edge.config.paths import folder_of
from edge.errors import ConfigError

if TYPE_CHECKING:  # rich is not cheap, and a gateway that starts shows no table
    from rich.console import Console
    from rich.table import Table

DEFAULT_ADMIN = "127.0.0.1:9900"
DEFAULT_TOKEN_FILE = "var/admin.token"
DEFAULT_CONFIG = "config.toml"
TIMEOUT_S = 30.0
LINES = "application/x-ndjson, text/event-stream, application/json"  # of long work, and of what has no end

_ADMIN_TABLE = re.compile(r"^\[admin\][^\n]*\n(?:(?!\[)[^\n]*(?:\n|\Z))*", re.MULTILINE)
_HOST = re.compile(r"[A-Za-z0-9._:%-]*")

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class CommandFailed(click.ClickException):
    """One clear line, exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(safe(f"edge: {self.message}"), file=file, err=file is None)


@dataclass(frozen=True, slots=True)
class Admin:
    """Where the admin API is, and the token for it."""

    target: AdminTarget
    token: str
    source: str  # where the address is from, for the error's text

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """The JSON that the API answers a GET with. Raises CommandFailed."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        timeout_s: float | None = TIMEOUT_S,
    ) -> Any:
        """One request; its answer's JSON. Raises CommandFailed with the API's own line."""
        connection, answer = self._send(method, path, body, query, timeout_s)
        try:
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(f"the gateway at {self.target} broke off: {error}") from None
        finally:
            connection.close()
        return self.parsed(data) if data else {}

    def parsed(self, data: bytes) -> Any:
        """The JSON of an answer."""
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise CommandFailed(f"{self.target} ({self.source}) answered what is no JSON") from None

    def lines(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[bytes]:
        """The answer line by line, as it comes; `timeout_s` is for each."""
        connection, answer = self._send(method, path, body, query, timeout_s, LINES)
        try:
            while line := answer.readline():
                if line.strip():
                    yield line.strip()
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(f"the gateway at {self.target} broke off: {error}") from None
        finally:
            connection.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: dict[str, Any] | None,
        timeout_s: float | None = TIMEOUT_S,
        accept: str = "application/json",
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self.target.connect(timeout_s)
        given = {key: value for key, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(given, doseq=True) if given else "")
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, target, data, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise CommandFailed(f"no gateway answers at {self.target} ({self.source}): {why}") from None
        if answer.getheader("Edge-Version") is None:
            answer.close()
            connection.close()
            raise CommandFailed(f"{self.target} ({self.source}) is no StreamGate Edge admin API: some other server")
        if answer.status >= 300:
            try:
                data = answer.read()
            except (OSError, http.client.HTTPException):
                data = b""
            connection.close()
            raise CommandFailed(_error_line(answer.status, data, self))
        return connection, answer


def _error_line(status: int, data: bytes, admin: Admin) -> str:
    if status == 401:
        return f"the gateway at {admin.target} does not accept the token; give --token-file or EDGE_TOKEN"
    try:
        found = orjson.loads(data)
        detail, problems = str(found["detail"]), [str(each) for each in found.get("problems", [])]
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {status}"
    if len(problems) < 2:  # the detail has it
        return detail
    return "\n".join([detail.partition(":")[0], *problems])


def admin_options(command: Decorated) -> Decorated:
    """The options that say which gateway is meant."""
    for option in (
        click.option("--token-file", type=click.Path(path_type=Path), help="File with the admin token."),
        click.option("--admin", metavar="HOST:PORT", help="The gateway's admin listener; or https://…, unix:PATH."),
        click.option("-c", "--config", type=click.Path(path_type=Path), help="The gateway's configuration file."),
    ):
        command = option(command)
    return command


def json_option(command: Decorated) -> Decorated:
    """Give a command the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def connect(config: Path | None, admin: str | None, token_file: Path | None) -> Admin:
    """The gateway that the options, the environment or a configuration file name."""
    address, source = admin or os.environ.get("EDGE_ADMIN"), "--admin or EDGE_ADMIN"
    file, pin = config or (Path(DEFAULT_CONFIG) if Path(DEFAULT_CONFIG).is_file() else None), None
    if file is not None and (config is not None or address is None or token_file is None):
        found = _from_config(file)
        token_file = token_file or Path(found.token_file)
        if not address:
            address, source = f"{'http' if found.tls is None else 'https'}://{found.listen}", str(file)
            pin = None if found.tls is None else str(found.tls.cert)
    if not address:
        address, source = DEFAULT_ADMIN, "the default; -c FILE or --admin name another"
    target = _target(address, pin)
    token = os.environ.get("EDGE_TOKEN", "").strip()
    if token and not _is_token(token):
        raise CommandFailed("EDGE_TOKEN: holds no admin token")
    token = token or _token(token_file or Path(DEFAULT_TOKEN_FILE))
    return Admin(target, token, source)


def _target(address: str, pin: str | None) -> AdminTarget:
    """`HOST:PORT`, with http:// or https:// before it, or `unix:PATH`."""
    if address.startswith("unix:"):
        return AdminTarget("localhost", 0, path=address.removeprefix("unix:"))
    host, _, port = address.removeprefix("http://").removeprefix("https://").rstrip("/").rpartition(":")
    host = host.strip("[]")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536) or not _HOST.fullmatch(host):
        raise CommandFailed(f"{address}: not HOST:PORT")
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return AdminTarget(reachable, int(port), address.startswith("https://"), pin)


def _from_config(path: Path) -> AdminTable:
    try:
        text = path.read_text(ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: {why_unread(error)}") from None
    try:
        admin = load(sources_of(path, text)).admin
    except ConfigError as error:
        found = _admin_table(text, str(path))
        if found is None:
            raise CommandFailed(f"{error.problems[0]} (`edge check` tells all)") from None
        admin = found
    return admin


def _admin_table(text: str, filename: str) -> AdminTable | None:
    """`[admin]` of a file that has mistakes elsewhere: the gateway that runs is not to be out of reach for them."""
    found = _ADMIN_TABLE.search(text)
    try:
        raw = {} if found is None else tomllib.loads(found[0])
        return AdminTable.model_validate(raw.get("admin", {}), context={"folder": folder_of(filename)})
    except ValueError:
        return None


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise CommandFailed(
            f"{path}: there is no admin token: a gateway writes it at its first start. Does one run here? "
            "-c FILE names its configuration, --token-file the token"
        ) from None
    except OSError as error:
        raise CommandFailed(
            f"{path}: cannot read the admin token: {error.strerror}; --token-file names another"
        ) from None
    except UnicodeDecodeError:
        token = ""
    if not _is_token(token):
        raise CommandFailed(f"{path}: holds no admin token")
    return token


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


# -- showing -----------------------------------------------------------------------------------------------------------


def say(value: Any) -> None:
    """JSON on standard output, and nothing in it that a terminal would obey."""
    click.echo(one_line(value, orjson.OPT_INDENT_2))


def one_line(value: Any, option: int = 0) -> str:
    """JSON without raw control bytes; those can only stand within its texts."""
    found = orjson.dumps(value, option=option).decode()
    return _HIDDEN.sub(lambda match: json.dumps(match[0])[1:-1], found)


_HIDDEN = re.compile("[\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def console(**more: Any) -> Console:
    """Where tables go; plain text when it is no terminal."""
    from edge.cli.plain import Plain

    width = None if os.isatty(1) else 160
    return Plain(**{"highlight": False, "markup": False, "emoji": False, "width": width, **more})


def table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    """A table for people; numbers to the right, None as a dash."""
    from rich.table import Table

    found = Table(title=safe(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        number = bool(rows) and all(isinstance(row[at], int | float | None) for row in rows)
        found.add_column(safe(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        found.add_row(*(text(cell) for cell in row))
    return found


def text(cell: Any) -> str:
    """A value as the text of one table cell, on one line."""
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.2f}".rstrip("0").rstrip(".")
    if isinstance(cell, list | tuple):
        return ", ".join(map(text, cell)) or "-"
    return safe(str(cell)).replace("\n", " ")


def is_utf8(text: str) -> bool:
    """Whether a text came as UTF-8; other bytes come as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def moment(at: str | None) -> datetime | None:
    """An RFC 3339 text of the API in the zone of whoever reads it."""
    return None if at is None else datetime.fromisoformat(at).astimezone()


def clock(at: str | None) -> str | None:
    """A moment's time of day."""
    return None if at is None else f"{moment(at):%H:%M:%S}"


def date(at: str | None) -> str | None:
    """A time of the API (RFC 3339) as a table shows it."""
    return None if at is None else f"{moment(at):%Y-%m-%d %H:%M:%S}"


def facts_of(event: dict[str, Any]) -> str:
    """What an event says beside its kind and time."""
    return ", ".join(f"{key} {text(value)}" for key, value in event.items() if key not in ("id", "time", "kind"))


def counted(number: int, word: str) -> str:
    """A number of things: `1 pool`, `2 pools`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def percent(ratio: float | None) -> str | None:
    """A ratio (0 to 1) in per cent."""
    return None if ratio is None else f"{ratio * 100:.1f} %"


def share_of(share: float, ramping: float | None) -> str:
    """A region's share of new requests, and how far it is on its way back."""
    return f"{share:g} %" if ramping is None else f"{share:g} % (ramping {ramping:.0f} %)"


def size(number: float | None) -> str | None:
    """A number of bytes with the unit that suits it."""
    if number is None:
        return None
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
