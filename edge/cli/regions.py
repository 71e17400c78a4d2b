"""Commands that change or show regions and backends at run time: `edge region …`, `edge backend …`."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from edge.cli.client import Admin, CommandFailed, admin_options, connect, json_option, safe, say, share_of, table
from edge.cli.client import console as terminal
from edge.config.positions import nearest

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def actor() -> str:
    """The user who runs the command, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name
        return "cli"


def change_options(command: Decorated) -> Decorated:
    """Give a command the options of a change: why, for how long, and whether the safety rule is passed over."""
    for option in (
        click.option("--force", is_flag=True, help="Even if it leaves a route without a region."),
        click.option("--expires", metavar="DURATION", help="Undo it after this time, such as 1h."),
        click.option("--reason", default="", help="Why; for the audit."),
    ):
        command = option(command)
    return command


def _change(reason: str, expires: str | None, force: bool) -> dict[str, Any]:
    return {"actor": actor(), "reason": reason, "expires": expires, "force": force}


def _part(name: str) -> str:
    return quote(name, safe="")


@click.group()
def region() -> None:
    """List, add, drain, activate and remove regions."""


@click.group()
def backend() -> None:
    """List, add, drain, activate and remove backends."""


# -- regions -----------------------------------------------------------------------------------------------------------


@region.command("list")
@admin_options
@json_option
def region_list(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """List the regions: admin state, health, share in each pool."""
    found = connect(config, admin, token_file).get("/v1/regions")
    if as_json:
        say(found)
        return
    rows = [
        [
            r["name"], r["source"], r["tier"], r["weight"], r["admin"], r["health"],
            [f"{pool} {share_of(share, r['ramping'].get(pool))}" for pool, share in r["shares"].items()],
            r["countries"], r["continents"],
            r["change"].get("reason") if r["change"] else None,
        ]
        for r in found["regions"]
    ]  # fmt: skip
    columns = ["region", "source", "tier", "weight", "admin", "health", "shares", "countries", "continents", "reason"]
    terminal().print(table("", columns, rows))


@region.command("add")
@click.argument("name")
@admin_options
@json_option
@change_options
@click.option("--tier", type=int, default=0, show_default=True, help="Lower tiers serve first.")
@click.option("--weight", type=int, default=100, show_default=True, help="Its share within the tier.")
@click.option("--location", nargs=2, type=float, metavar="LAT LON", help="Where it is, in degrees.")
@click.option("--country", "countries", multiple=True, help="A country it serves, such as DE; may be repeated.")
@click.option("--continent", "continents", multiple=True, help="A continent, such as EU; may be repeated.")
@click.option("--last-resort", is_flag=True, help="May serve although inactive when nothing else can.")
def region_add(name: str, **given: Any) -> None:
    """Register a region at run time, or change one."""
    body = {key: given[key] for key in ("tier", "weight", "countries", "continents", "last_resort")}
    body["location"] = list(given["location"]) if given["location"] else None
    _send(given, "PUT", f"/v1/regions/{_part(name)}", body, f"region {name} registered")


@region.command("remove")
@click.argument("name")
@admin_options
@json_option
@change_options
def region_remove(name: str, **given: Any) -> None:
    """Remove a region that was registered at run time."""
    _send(given, "DELETE", f"/v1/regions/{_part(name)}", {}, f"region {name} removed")


def _region_state(word: str, state: str, help_text: str) -> click.Command:
    @region.command(word, help=help_text)
    @click.argument("name")
    @admin_options
    @json_option
    @change_options
    def command(name: str, **given: Any) -> None:
        _send(given, "POST", f"/v1/regions/{_part(name)}/state", {"state": state}, f"region {name} is {state}")

    return command


_region_state("activate", "active", "Let a region serve again after a drain or deactivation.")
_region_state("drain", "draining", "Send a region no new requests; running ones end.")
_region_state("deactivate", "inactive", "Send a region no requests, even during failover.")


@region.command("failback")
@click.argument("name")
@admin_options
@json_option
@click.option("--reason", default="", help="Why; for the audit.")
def region_failback(name: str, **given: Any) -> None:
    """Move pools back to a region now. For pools that switched away and have failback = "manual", or are frozen."""
    given |= {"expires": None, "force": False}
    _send(given, "POST", f"/v1/regions/{_part(name)}/failback", {}, f"pools may come back to region {name}")


# -- backends ----------------------------------------------------------------------------------------------------------


@backend.command("list")
@click.argument("pool", required=False)
@admin_options
@json_option
def backend_list(
    pool: str | None, config: Path | None, admin: str | None, token_file: Path | None, as_json: bool
) -> None:
    """List the backends of one pool, or of all."""
    found = connect(config, admin, token_file).get("/v1/pools")
    pools = [each for each in found["pools"] if pool in (None, each["name"])]
    if pool is not None and not pools:
        names = [each["name"] for each in found["pools"]]
        near = nearest(pool, names)
        raise CommandFailed(
            f"there is no pool {pool}" + (f", did you mean {near}?" if near else f"; known: {', '.join(names)}")
        )
    if as_json:
        say({"pools": pools})
        return
    rows = [
        [
            p["name"], b["id"], b["url"], b["region"], b["weight"], b["source"], b["admin"], b["health"],
            b["in_flight"], b["requests"], b["p50_ms"], b["p99_ms"],
        ]
        for p in pools
        for b in p["backends"]
    ]  # fmt: skip
    columns = [
        "pool", "backend", "url", "region", "weight", "source", "admin", "health", "in flight", "requests", "p50 ms",
        "p99 ms",
    ]  # fmt: skip
    terminal().print(table("", columns, rows))


@backend.command("add")
@click.argument("pool")
@click.argument("url")
@admin_options
@json_option
@change_options
@click.option("--id", "identity", help="Left out: host and port.")
@click.option("--region", help="Its region.")
@click.option("--weight", type=int, default=1, show_default=True, help="Its share within the pool.")
@click.option("--max-in-flight", type=int, help="Requests at once at most.")
def backend_add(pool: str, url: str, **given: Any) -> None:
    """Register a backend at run time, or change one."""
    body = {"url": url, **{key: given[key] for key in ("region", "weight", "max_in_flight") if given[key] is not None}}
    path = f"/v1/pools/{_part(pool)}/backends" + (f"/{_part(given['identity'])}" if given["identity"] else "")
    _send(given, "PUT", path, body, f"backend {given['identity'] or url} registered in {pool}")


@backend.command("remove")
@click.argument("pool")
@click.argument("identity", metavar="ID")
@admin_options
@json_option
@change_options
def backend_remove(pool: str, identity: str, **given: Any) -> None:
    """Remove a backend that was registered at run time."""
    _send(given, "DELETE", f"/v1/pools/{_part(pool)}/backends/{_part(identity)}", {}, f"backend {identity} removed")


def _backend_state(word: str, state: str, help_text: str) -> click.Command:
    @backend.command(word, help=help_text)
    @click.argument("pool")
    @click.argument("identity", metavar="ID")
    @admin_options
    @json_option
    @change_options
    def command(pool: str, identity: str, **given: Any) -> None:
        path = f"/v1/pools/{_part(pool)}/backends/{_part(identity)}/state"
        _send(given, "POST", path, {"state": state}, f"backend {identity} is {state}")

    return command


_backend_state("activate", "active", "Let a backend serve again after a drain or deactivation.")
_backend_state("drain", "draining", "Send a backend no new requests; running ones end.")
_backend_state("deactivate", "inactive", "Send a backend no requests at all.")


def _send(given: dict[str, Any], method: str, path: str, body: dict[str, Any], done: str) -> None:
    gateway: Admin = connect(given["config"], given["admin"], given["token_file"])
    change = _change(given["reason"], given["expires"], given["force"])
    if method == "DELETE":
        query = {key: value for key, value in change.items() if value}
        found = gateway.call(method, path, None, {**query, "force": "true"} if change["force"] else query)
    else:
        found = gateway.call(method, path, {**body, **{key: value for key, value in change.items() if value}})
    if given["as_json"]:
        say(found)
    else:
        click.echo(safe(done))


COMMANDS: tuple[click.Command, ...] = (region, backend)
