"""`edge runbook list|run`: the shipped runbooks and the operator's own, carried out on one gateway.

One rule: a deed goes through the admin API wherever a gateway can do it, so that it is checked, audited and durable
like the same deed by hand; the run's id is the actor.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import orjson

from edge.adapters.config_files import ENCODING
from edge.adapters.durable_file import put
from edge.adapters.key_file import key_of
from edge.cli.admin_target import AdminTarget
from edge.cli.client import Admin, CommandFailed, connect, console, json_option, say, table
from edge.cli.recovery import cache_of, state_of, warm_of
from edge.cli.repository import RepositoryOptions, checked_config, named, own_state, repository_options
from edge.cli.state import LocalState, accepted, newest_config
from edge.config.types import Address, UnixAddress
from edge.control.recovered import JOURNAL_FILE, Snapshot
from edge.control.written_back import NEW_MODE, put_included
from edge.errors import ConfigError, RunbookFailed
from edge.recovery.points import Point, PointKind, is_sound
from edge.recovery.runbook import Check, Deed, Runbook, Step, filled, read_runbook
from edge.recovery.table import Entry
from edge.sidecar.restore import Target, chosen, restore
from edge.sidecar.runbook import Clock, Log, carry_out, rehearse
from edge.sidecar.source import with_warm
from edge.sidecar.take import take

ANSWER_S = 10.0
RUNS = "runbooks"


def books(folder: Path | None) -> dict[str, tuple[Runbook, str]]:
    """Runbooks by name, with where each is from; an operator's own goes before a shipped one. Raises RunbookFailed."""
    found: dict[str, tuple[Runbook, str]] = {}
    for each in sorted(files("edge").joinpath("runbooks").iterdir(), key=lambda path: path.name):
        if each.name.endswith(".toml"):
            book = read_runbook(each.read_text(encoding="utf-8"), each.name)
            found[book.name] = (book, "shipped")
    if folder is not None and not folder.is_dir():
        raise RunbookFailed(f"{folder}: snapshots.runbooks names no directory")
    for path in sorted(folder.glob("*.toml")) if folder is not None else ():
        book = read_runbook(path.read_text(ENCODING), str(path))
        found[book.name] = (book, str(path))
    return found


class LocalHands:
    """`sidecar.runbook.Hands` on this machine."""

    def __init__(self, options: RepositoryOptions) -> None:
        self._options = options

    # -- checks ----------------------------------------------------------------------------------------------------

    def holds(self, check: Check) -> str | None:
        """As `sidecar.runbook.Hands.holds`."""
        found: dict[str, Callable[[Check], str | None]] = {
            "ready": self._ready,
            "stopped": self._stopped,
            "region": self._region,
            "points": self._points,
            "config": self._config,
            "survives": self._survives,
            "url": self._url,
        }
        try:
            return found[check.what](check)
        except CommandFailed as error:
            raise RunbookFailed(error.message) from None

    def _ready(self, check: Check) -> str | None:
        admin = self._admin()
        status, text = _ask(admin.target, "/readyz")
        return _unless(status == 200, bool(check.value), text.strip() or "no gateway answers")

    def _stopped(self, check: Check) -> str | None:
        lock = own_state(checked_config(self._options))
        if lock is not None:
            lock.close()
        return _unless(lock is not None, bool(check.value), "a gateway holds the state directory")

    def _region(self, check: Check) -> str | None:
        region = self._admin().get(f"/v1/regions/{check.value}")
        for name in ("health", "admin"):
            if name in check.more and region[name] != check.more[name]:
                return f"{name} is {region[name]}"
        if "in_flight" in check.more:
            pools = self._admin().get("/v1/pools")["pools"]
            backends = (each for pool in pools for each in pool["backends"] if each["region"] == check.value)
            running = sum(int(each["in_flight"]) for each in backends)
            return None if running <= int(check.more["in_flight"]) else f"{running} requests are in flight"
        return None

    def _points(self, check: Check) -> str | None:
        points = self._options.work().vault.points()
        sound = sum(is_sound(points, point) for point in points.values())
        return None if sound >= int(check.value) else f"there are {sound}"

    def _config(self, check: Check) -> str | None:
        try:
            checked_config(replace(self._options, config=None))
            why = "the file is accepted"
        except (CommandFailed, ConfigError) as error:
            return str(getattr(error, "message", error)) if check.value else None
        return None if check.value else why

    def _survives(self, check: Check) -> str | None:
        found = self._admin().call("POST", "/v1/simulate", {"lose": [check.value]})
        lost = [*found["refused"], *(f"pool {p['name']}" for p in found["pools"] if p["unserved"]["after"])]
        return None if not lost else f"{lost[0]} could not be served"

    def _url(self, check: Check) -> str | None:
        listen = checked_config(self._options).listen.http
        if not listen:
            raise RunbookFailed("the gateway has no plain listener to ask")
        host, _, path = str(check.value).partition("://")[2].partition("/")
        status, _ = _ask(_target(listen[0]), f"/{path}", host)
        return None if status == int(check.more.get("status", 200)) else f"it answers {status}"

    # -- deeds -----------------------------------------------------------------------------------------------------

    def carry_out(self, step: Step, run: str) -> str:
        """As `sidecar.runbook.Hands.carry_out`."""
        deeds: dict[Deed, Callable[[Step, str], str]] = {
            Deed.DRAIN: self._state,
            Deed.ACTIVATE: self._state,
            Deed.DEACTIVATE: self._state,
            Deed.WARM: self._warm,
            Deed.SNAPSHOT: self._snapshot,
            Deed.RESTORE: self._restore,
            Deed.DRILL: self._drill,
        }
        try:
            return deeds[step.deed](step, run)
        except CommandFailed as error:
            raise RunbookFailed(error.message) from None

    def _state(self, step: Step, run: str) -> str:
        state = {Deed.DRAIN: "draining", Deed.ACTIVATE: "active", Deed.DEACTIVATE: "inactive"}[step.deed]
        region = step.values["region"]
        body = {"state": state, "actor": f"runbook:{run}", "reason": step.name, "force": bool(step.values.get("force"))}
        self._admin().call("POST", f"/v1/regions/{region}/state", body)
        return f"region {region} is {state}"

    def _warm(self, step: Step, run: str) -> str:
        path = str(step.values["file"])
        if not path:
            return "no list was given"
        try:
            urls = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise RunbookFailed(f"{path}: {error.strerror}") from None
        last = self._finished("/v1/warm", {"urls": urls}, step.timeout_s)
        return f"{last.get('fetched', len(urls))} of {len(urls)} fetched"

    def _snapshot(self, step: Step, run: str) -> str:
        kind = str(step.values.get("kind", "full"))
        config = checked_config(self._options)
        lock = own_state(config)
        if lock is None:
            body = {"kind": kind, "actor": f"runbook:{run}", "reason": step.name}
            return f"point {self._finished('/v1/snapshots', body, step.timeout_s)['id']}"
        with lock:
            work = self._options.work(make=True)
            state = state_of(config, str(self._options.path), work.vault.sealer.encrypted)
            return (
                f"point {take(work, PointKind(kind), lambda: with_warm(state.capture({}), warm_of(config))).point.id}"
            )

    def _restore(self, step: Step, run: str) -> str:
        if step.values.get("what", "state") == "config":
            return self._restore_config(str(step.values.get("point", "")))
        config = checked_config(self._options)
        state = Path(config.state.path)
        lock = own_state(config)
        if lock is None:
            raise RunbookFailed(f"{state}: a gateway runs with this state directory: stop it")
        with lock:
            work = self._options.work()
            local = LocalState(state, work.vault.sealer.encrypted)
            target = Target(state, cache_of(config), replace=True, survivor=state)
            found = restore(work, local, warm_of(config), self._choose(step), target)
        problems = accepted(found.state, found.rebuilt)
        return f"from {found.point.id} in {found.seconds:.1f} s" + (f"; but {problems[0]}" if problems else "")

    def _restore_config(self, point: str) -> str:
        """The newest accepted configuration takes the file's place; the file is kept beside it."""
        (text, included), source = self._last_config(point)
        path = self._options.path
        put_included(included, path.parent)
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
            return f"the file is that of {source} already"
        kept, mode = "", NEW_MODE
        if path.exists():
            mode = path.stat().st_mode & 0o777
            bad = path.with_name(f"{path.name}.bad-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            os.link(path, bad)
            kept = f", the bad one is kept as {bad.name}"
        put(path, text.encode(), mode)
        self._options = replace(self._options, config=None)  # whoever needs it reads the file as it is now
        return f"{path} is that of {source}{kept}"

    def _last_config(self, point: str) -> tuple[tuple[str, dict[str, str]], str]:
        """A text with those that it includes, and where it is from: the state directory's journal, else a point."""
        state = self._options.state
        if not point and state is not None and (state / JOURNAL_FILE).exists():
            found = Snapshot(state / JOURNAL_FILE)
            kept, included = newest_config(found.table, lambda entry: found.bodies[entry.blob])
            if kept is not None:
                return (kept, included), f"the journal in {state}"
        work = self._options.work()
        points = work.vault.points()
        name = chosen(points, named(points, point).id if point else None, None).id
        held, places = work.vault.table(points, name)

        def read(entry: Entry) -> bytes:
            return work.vault.body(entry.blob, places[entry.blob])

        text, included = newest_config(held, read)
        if text is None:
            raise RunbookFailed(f"point {name} holds no configuration")
        return (text, included), f"point {name}"

    def _choose(self, step: Step) -> Callable[[dict[str, Point]], Point]:
        point = str(step.values.get("point", ""))
        return lambda points: chosen(points, named(points, point).id if point else None, None)

    def _drill(self, step: Step, run: str) -> str:
        from edge.cli.drill import run_drill  # not cheap

        config = checked_config(self._options)
        work = self._options.work()
        point = self._choose(step)(work.vault.points())
        found = run_drill(work, point, config.snapshots, Path(config.state.path), key_of(self._options.where.key_file))
        if not found.passed:
            raise RunbookFailed(found.problems[0])
        return f"{point.id} passed, rto {found.rto_s} s"

    def _finished(self, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Do long work by the API, and return the last line of its answer. Raises RunbookFailed."""
        last: dict[str, Any] = {}
        for line in self._admin().lines("POST", path, body, timeout_s=timeout_s):
            last = orjson.loads(line)
        if last.get("finished") is not True:
            raise RunbookFailed(str(last.get("detail") or "it broke off"))
        return last

    def _admin(self) -> Admin:
        return connect(self._options.path, self._options.admin, self._options.token_file)


def _unless(found: bool, wanted: bool, why: str) -> str | None:
    return None if found is wanted else why if wanted else "it is so"


def _target(address: Address | UnixAddress) -> AdminTarget:
    """How to reach a listener of this machine."""
    if isinstance(address, UnixAddress):
        return AdminTarget("localhost", 0, path=address.path)
    return AdminTarget({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)


def _ask(target: AdminTarget, path: str, authority: str = "") -> tuple[int, str]:
    """Status and text of a GET; 0 when nobody answers."""
    connection = target.connect(ANSWER_S)
    try:
        connection.request("GET", path, headers={"Host": authority} if authority else {})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("latin-1")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


# -- commands ----------------------------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def runbook() -> None:
    """List, rehearse and carry out recovery procedures."""


def _folder(options: RepositoryOptions) -> Path | None:
    values = options.config.snapshots if options.config is not None else None
    return Path(values.runbooks) if values is not None and values.runbooks is not None else None


@runbook.command("list")
@json_option
@repository_options
def list_command(options: RepositoryOptions, as_json: bool) -> None:
    """List the runbooks."""
    found = books(_folder(options))
    if as_json:
        rows = [
            {
                "name": book.name,
                "description": book.description,
                "source": source,
                "parameters": {
                    name: {"help": text, "default": given} for name, (text, given) in book.parameters.items()
                },
                "steps": [{"name": step.name, "do": step.deed.value} for step in book.steps],
            }
            for book, source in found.values()
        ]
        say({"runbooks": rows})
        return
    shown = [
        [book.name, list(book.parameters), len(book.steps), source, book.description] for book, source in found.values()
    ]
    console().print(table("", ["name", "parameters", "steps", "from", "description"], shown))


@runbook.command("run")
@click.argument("name")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what stands in the way.")
@click.option("--resume", is_flag=True, help="Go on with the last run that did not come to its end.")
@repository_options
def run_command(options: RepositoryOptions, name: str, settings: tuple[str, ...], dry_run: bool, resume: bool) -> None:
    """Carry out a runbook, step by step. Ends with a non-zero code when a step fails."""
    found = books(_folder(options))
    if name not in found:
        raise CommandFailed(f"there is no runbook {name}; known: {', '.join(found)}")
    given = dict(_setting(each) for each in settings)
    hands = LocalHands(options)
    if dry_run:
        _tell(rehearse(filled(found[name][0], given), hands))
        return
    state = options.state or Path.cwd() / "var"
    # Beside the state directory, which a step may switch out.
    log = Log(state.with_name(f"{state.name}-{RUNS}"))
    run = log.unfinished(name) if resume else None
    if run is None:
        run = log.begin(found[name][0], given, time.time())
    book = filled(found[name][0], dict(run.parameters))
    _tell(carry_out(book, run, hands, log, Clock(time.time, time.monotonic, time.sleep), _waits))


def _tell(steps: Iterator[tuple[Step, str]]) -> None:
    for step, said in steps:
        click.echo(f"{step.deed.value:10} {step.name}: {said}")


def _waits(step: Step, why: str) -> None:
    click.echo(f"waiting    {step.name} (at most {step.timeout_s:g} s): {why}", err=True)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: expected NAME=VALUE")
    return name, value


COMMANDS = (runbook,)
