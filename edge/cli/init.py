"""`edge init`: a first configuration, and with `--app` a first application with its test.

One rule: nothing that is there is written over. What it writes runs as it is.
"""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.client import DEFAULT_CONFIG, CommandFailed, safe
from edge.config.loader import load_text
from edge.config.types import parse_backend_url

CONFIG = """\
# A first configuration. `edge check` reads it, `edge run` serves it; `edge check --keys` lists every key.

[listen]
http = ["127.0.0.1:8080"]

[admin]
listen = "127.0.0.1:9900"                 # metrics, dashboard, API; its token is made at the first start

[pools.site]
[[pools.site.backends]]
{backend}

[[routes]]                                # the most specific host wins, then the longest path
pool = "site"
"""

APP = '''\
"""A first application: `edge dev app.py` runs it while you write, `edge run` serves it."""

from __future__ import annotations

from aiohttp import web

from edge.sdk import edge


async def hello(request: web.Request) -> web.Response:
    text = f"Hello {edge().client}, this is request {edge().request_id}.\\n"
    return web.Response(text=text, headers={"Cache-Control": "private, no-store"})


async def page(request: web.Request) -> web.Response:
    """Made once a minute, then answered from the cache."""
    return web.Response(text="A page that is stored.\\n", headers={"Cache-Control": "max-age=60"})


def app() -> web.Application:
    """A new one: an application runs once, and each test needs its own."""
    application = web.Application()
    application.add_routes([web.get("/", hello), web.get("/page", page)])
    return application
'''

TEST = '''\
"""`pytest` runs this with pytest-asyncio in its auto mode, or as it is marked here."""

from __future__ import annotations

import pytest
from edge.testing import gateway

from app import app


@pytest.mark.asyncio
async def test_the_page_is_stored() -> None:
    async with gateway(app) as edge:
        for verdict in ("miss", "hit"):
            async with edge.get("/page") as answer:
                assert answer.status == 200
                assert verdict in answer.headers["Cache-Status"]
        async with edge.get("/") as answer:
            assert "Hello 127.0.0.1" in await answer.text()
        assert edge.faults() == []
'''


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option("--app", "with_app", is_flag=True, help="An application in Python as well, with its test.")
@click.option("--backend", metavar="URL", help="What to send requests to; left out: http://127.0.0.1:9000.")
def init(directory: Path, with_app: bool, backend: str | None) -> None:
    """Write a first configuration. With --app also a first application and its test."""
    if with_app and backend is not None:
        raise click.UsageError("--app is a backend of its own: it goes without --backend")
    url = backend or "http://127.0.0.1:9000"
    try:
        parse_backend_url(url)
    except ValueError as error:
        raise CommandFailed(f"--backend {error}") from None
    line = 'app = "app:app"                           # app.py beside this file' if with_app else f'url = "{url}"'
    files = {DEFAULT_CONFIG: CONFIG.format(backend=line)}
    if with_app:
        files.update({"app.py": APP, "test_app.py": TEST})
    load_text(files[DEFAULT_CONFIG], DEFAULT_CONFIG)
    taken = [name for name in files if (directory / name).exists()]
    if taken:
        raise CommandFailed(f"{directory / taken[0]} is there already; nothing was written")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
            click.echo(safe(f"wrote {directory / name}"))
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from None
    place = "" if directory == Path(".") else f"cd {directory} && "
    if with_app:
        click.echo(safe(f"\nNext: {place}edge dev app.py"))
    else:
        first = "" if backend else f"put your backend's address in the place of {url}, then: "
        click.echo(safe(f"\nNext: {first}{place}edge check && edge run"))


COMMANDS = (init,)
