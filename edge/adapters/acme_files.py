"""What is kept of accounts, certificates and attempts, in the state directory.

    acme/<directory>/account.json        the account's key and where the server has it
    acme/<directory>/<name>.pem          key and chain, self-signed until the first one came
    acme/<directory>/<name>.attempts     when it failed, and when it is tried again
    acme/lock                            held by the one process that asks for certificates

One rule: a file is replaced whole (`durable_file`) and read by its owner alone; one that cannot be read is as good as
none, and the gateway goes on.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time

import orjson

from edge.adapters.certificate_pem import Life, NotUsable, life, self_signed
from edge.adapters.durable_file import FRESH, create, put, sync
from edge.config.acme import FOLDER, Acme
from edge.config.loader import Config

LEFT_S = 60.0  # a fresh file of this age is one that a killed process left


@dataclass(frozen=True, slots=True)
class Account:
    """`key` is a JWK as JSON; `uri` is empty until the server knows it."""

    key: str
    uri: str = ""
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Attempts:
    """What is known of a name beside its certificate. `suggested_at`: when the server would have it renewed (ARI)."""

    failures: int = 0  # since it last went well
    failed_at: float = 0.0
    next_at: float = 0.0
    error: str = ""
    suggested_at: float | None = None
    ask_again_at: float = 0.0  # about that


@dataclass(frozen=True, slots=True)
class Order:
    """One name that is to have a certificate."""

    values: Acme
    name: str
    pem: Path

    @property
    def key(self) -> tuple[str, str]:
        """The folder and the name, which together identify an order."""
        return self.values.folder, self.name


def orders(config: Config) -> list[Order]:
    """Every name of a configuration, once for each directory."""
    found: dict[tuple[str, str], Order] = {}
    for listener in config.listen.https:
        values = listener.acme
        for name in values.names if values is not None else ():
            assert values is not None
            order = Order(values, name, Path(values.pem(config.state.path, name)))
            found.setdefault(order.key, order)
    return list(found.values())


def only_issuer(state: Path) -> int:
    """Wait until nobody else asks for certificates of this state; held until the process ends. Raises OSError."""
    home = state / FOLDER
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for left in home.glob(f"*/{FRESH}*"):
        try:
            if time() - left.stat().st_mtime > LEFT_S:
                left.unlink()
        except FileNotFoundError:
            pass  # it has its name now
    return lock


def stand_in(order: Order) -> str | None:
    """Have a file for a listener to serve: self-signed where there is none, or none that can be used. Says which was
    not usable. Raises OSError."""
    for folder in (order.pem.parent.parent, order.pem.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    if not order.pem.exists():
        create(order.pem, self_signed(order.name, time()))
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(order.pem)
    except (OSError, ValueError):
        put(order.pem, self_signed(order.name, time()))
        return f"{order.pem} could not be used"
    return None


def account(order: Order) -> Account | None:
    """The account at the order's directory."""
    try:
        return Account(**orjson.loads((order.pem.parent / "account.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def keep_account(order: Order, account: Account) -> None:
    """Durable when it returns. Raises OSError."""
    put(order.pem.parent / "account.json", orjson.dumps(asdict(account)))


def attempts(order: Order) -> Attempts:
    """The record of earlier attempts for a name."""
    try:
        return Attempts(**orjson.loads(order.pem.with_suffix(".attempts").read_bytes()))
    except (OSError, ValueError, TypeError):
        return Attempts()


def keep_attempts(order: Order, attempts: Attempts) -> None:
    """Durable when it returns. Raises OSError."""
    put(order.pem.with_suffix(".attempts"), orjson.dumps(asdict(attempts)))


def keep_certificate(order: Order, pem: bytes) -> None:
    """Durable when it returns. Raises OSError."""
    put(order.pem, pem)


def life_of(order: Order) -> Life | None:
    """When the certificate in the file begins and ends (epoch seconds)."""
    try:
        return life(order.pem.read_bytes())
    except (OSError, NotUsable):
        return None
