"""The command `edge`: `run`, `check`, `demo` and the hidden `worker`. The other commands have files of their own.

One rule: a failure is one clear line on standard error and a non-zero exit code: 1 when it failed, 2 when it was asked
for wrongly. A missing configuration file is an error, never a start with defaults.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop
from uvloop._version import __version__ as uvloop_version

from edge import __version__
from edge.adapters.background_writer import quiet_stderr
from edge.adapters.config_files import sources_of, why_unread
from edge.adapters.tls import quiet_names
from edge.cli.build_kind import build_kind
from edge.cli.client import (
    DEFAULT_CONFIG,
    CommandFailed,
    connect,
    console,
    counted,
    is_utf8,
    json_option,
    safe,
    say,
    table,
)
from edge.config.loader import Config, config_hash, describe, load
from edge.config.sources import Sources
from edge.errors import ConfigError, EdgeError

if TYPE_CHECKING:
    from edge.control.succession import Successor

OLDEST_UVLOOP = (0, 23)
ASKED_S = 2.0
SUCCESSION = "EDGE_SUCCESSION"  # `control.succession`: this process is to take over from another one
FIRST = ("run", "check", "demo", "worker")
# What is in which module of this package: read when it is asked for, since a start waits for every module.
LATER = {
    "init": "init",
    "dev": "dev",
    **dict.fromkeys(("status", "explain", "simulate", "warm"), "live"),
    "top": "top",
    "purge": "purge",
    **dict.fromkeys(("reload", "upgrade"), "reload"),
    **dict.fromkeys(("events", "audit", "connections", "config", "cache"), "look"),
    **dict.fromkeys(("region", "backend"), "regions"),
    "snapshot": "snapshots",
    **dict.fromkeys(("restore", "drill"), "restore"),
    "runbook": "runbook",
    "fleet": "fleet",
    "certificate": "certificates",
}


class Commands(click.Group):
    """The command group: loads a command's module when it is asked for, and turns every error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys((*FIRST, *LATER)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER and cmd_name not in self.commands:
            for command in import_module(f"edge.cli.{LATER[cmd_name]}").COMMANDS:
                self.add_command(command)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from difflib import get_close_matches  # a start does not wait for it

            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near:
                raise
            raise click.UsageError(f"No such command {args[0]!r}, did you mean {near[0]!r}?", ctx) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for argument in args:
            if not is_utf8(argument):
                raise click.UsageError(f"an argument is not UTF-8 text: {argument!a}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(safe(problem), err=True)
            ctx.exit(1)
        except EdgeError as error:
            raise CommandFailed(error.detail or type(error).__name__) from None
        except KeyboardInterrupt:
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own ways to end
        except Exception as error:
            raise CommandFailed(f"a bug in this command: {type(error).__name__}: {error} ({place_of(error)})") from None


def place_of(error: BaseException) -> str:
    """File and line where an exception was raised, for a bug report."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown place" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"edge, version {__version__} ({build_kind()})")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """StreamGate Edge: reverse proxy, CDN cache, load balancer, regions that fail over."""


def read_config(path: Path) -> tuple[Config, Sources]:
    """Read and check the configuration. Raises ConfigError for mistakes in it, CommandFailed when it cannot be read."""
    try:
        sources = sources_of(path)
    except FileNotFoundError as error:
        raise CommandFailed(
            f"{path}: {why_unread(error)}; `edge init` writes a first one, -c FILE names another"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: {why_unread(error)}") from None
    return load(sources), sources


def preflight_warnings(config: Config, sources: Sources, strict: bool = False) -> list[str]:
    """Check what the configuration names on this machine (files, ports, certificates) and return the warnings.

    Raises ConfigError for what cannot work here; with `strict` for warnings too.
    """
    from edge.control.preflight import preflight  # not needed, and not cheap, for other commands

    found = preflight(config, sources)
    if found.errors or (strict and found.warnings):
        raise ConfigError([*found.errors, *(found.warnings if strict else [])])
    return found.warnings


config_option = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True,
    help="The configuration file.",
)  # fmt: skip


@main.command()
@config_option
def run(path: Path) -> None:
    """Start the gateway. It runs until SIGTERM or Ctrl-C: a supervisor and its workers."""
    successor = None
    if SUCCESSION in os.environ:
        from edge.control.succession import Successor

        successor = Successor.from_environment()
    try:
        _run(path, successor)
    except Exception as error:
        if successor is not None:
            said = error.problems[0] if isinstance(error, ConfigError) else str(error)
            successor.failed(said)
        raise


def _run(path: Path, successor: Successor | None) -> None:
    config, sources = read_config(path)
    found = uvloop_version
    if tuple(map(int, found.split(".")[:2])) < OLDEST_UVLOOP:  # uvloop issue 645
        raise CommandFailed(f"uvloop {found} is too old: below 0.23 one client's response could reach another")
    from edge.control.early import end_early, start_early, worker_count

    early = start_early(worker_count(config))
    try:
        from edge.control.gateway import run_gateway  # reading these takes as long as a worker takes to come up
        from edge.control.opening import Settings

        for line in preflight_warnings(config, sources):
            click.echo(safe(f"edge: {line}"), err=True)
        gc.freeze()  # libraries stay: to look through them took 35 ms now and then, in which a purge waited
        gc.enable()  # `begin` had it rest
        with quiet_stderr(), quiet_names():
            code = uvloop.run(run_gateway(Settings(config, sources, successor, early=early)))
    finally:
        end_early(early)
    sys.exit(code)


@main.command()
@config_option
@json_option
@click.option("--keys", is_flag=True, help="List every key with type, default and help; reads no file.")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
def check(path: Path, as_json: bool, keys: bool, strict: bool) -> None:
    """Check a configuration file. Names every mistake at once, with line and column,
    and what the file names that cannot be used on this machine."""
    if keys:
        from edge.control.comparing import taken_on_by  # not cheap, and not needed for other commands

        found = [{**key._asdict(), "taken_on_by": taken_on_by(key.key)} for key in describe()]
        if as_json:
            say(found)
        else:
            columns = ["key", "type", "default", "help", "taken on by"]
            console().print(table("", columns, [list(key.values()) for key in found]))
        return
    try:
        config, sources = read_config(path)
        notes = [*preflight_warnings(config, sources, strict), *beside_what_runs(path)]
    except ConfigError as error:
        if as_json:
            say({"ok": False, "problems": error.problems})
            sys.exit(1)
        raise
    if as_json:
        say({"ok": True, "problems": [], "warnings": notes, "hash": config_hash(sources.text, sources.files)})
        return
    for line in notes:
        click.echo(safe(f"{line} (warning)"), err=True)
    counts = ", ".join(
        counted(len(found), word)
        for found, word in ((config.routes, "route"), (config.pools, "pool"), (config.regions, "region"))
    )
    click.echo(f"{path}: ok ({counts})")


def beside_what_runs(path: Path) -> list[str]:
    """What a reload would not put in force, where a gateway runs by this file; nothing where that cannot be asked."""
    from edge.cli.reload import not_in_force

    try:
        gateway = connect(path, None, None)
        if Path(gateway.call("GET", "/v1/status", timeout_s=ASKED_S)["config"]["file"]).samefile(path):
            return not_in_force(gateway.call("POST", "/v1/reload", {"dry_run": True}, timeout_s=ASKED_S)["needs"])
    except (CommandFailed, OSError, KeyError, TypeError):
        pass  # none runs, or it is another one's
    return []


@main.command("demo")
@click.option(
    "--directory", type=click.Path(path_type=Path), default="var/demo", show_default=True,
    help="Where its configuration, state and log are written.",
)  # fmt: skip
def demo_command(directory: Path) -> None:
    """Run a demo: a gateway before two regions of sample origins. Ctrl-C ends it."""
    from edge.cli import demo  # not cheap, and not needed for other commands
    from edge.control.gateway import run_gateway
    from edge.control.opening import Settings

    taken = demo.busy()
    if taken is not None:
        raise CommandFailed(f"{taken} is in use; the demo needs {demo.HTTP} and {demo.ADMIN}")
    directory.mkdir(parents=True, exist_ok=True)
    origins = demo.Origins()
    try:
        origins.start()
        path = directory / "demo.toml"
        path.write_text(demo.demo_toml(origins.ports, directory), encoding="utf-8")
        config, sources = read_config(path)
        stays = "the demo cannot be upgraded while it runs: end it and start it again"
        settings = Settings(config, sources, on_ready=lambda: click.echo(demo.greeting(path)), stays=stays)
        with quiet_stderr(), quiet_names():
            code = uvloop.run(run_gateway(settings))
    except RuntimeError as error:
        raise CommandFailed(str(error)) from None
    finally:
        origins.stop()
    sys.exit(code)


@main.command(hidden=True)
@click.option("--fd", type=int, required=True)
@click.option("--channel", type=int, required=True)
def worker(fd: int, channel: int) -> None:
    """One worker; started by `edge run`, which holds the other ends of the sockets."""
    from edge.cli.worker_process import run_worker

    sys.exit(uvloop.run(run_worker(fd, channel)))


if __name__ == "__main__":
    main()
