"""The private names of aiohttp that the gateway uses: these and no others; an aiohttp without one fails readably."""

from __future__ import annotations

import ast
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web, web_protocol
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from edge.adapters import app_handler, app_server

# Where each is used: an object of aiohttp's, by the name that it has in our code, and its names.
USED = {
    "app_handler.py": {
        "self": {
            *("_buffer_paused", "_close", "_current_request", "_force_close", "_handler_waiter", "_keepalive"),
            *("_lingering_time", "_loop", "_make_error_handler", "_manager", "_messages", "_parser"),
            *("_request_factory", "_request_handler", "_request_in_progress", "_resume_reading_if_drained"),
            *("_task_handler", "_upgraded"),
        },
        "request": {"_finish", "_task"},
    },
    "app_server.py": {"server": {"_kwargs"}},
}
MODULE = ("ERROR", "PayloadAccessError", "_ErrInfo")  # of `aiohttp.web_protocol`, which documents none of its names


async def handler(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


async def known() -> dict[str, set[str]]:
    """What aiohttp has, by the names that its objects have in our code."""
    return {
        "self": set(dir(RequestHandler)) | set(dir(BaseProtocol)),
        "request": set(dir(BaseRequest)) | BaseRequest.ATTRS,
        "server": set(vars(web.Server(handler))),
    }


def found(path: Path, objects: set[str]) -> dict[str, set[str]]:
    """The private names that a file uses, by object, without its own; of `self` where that is aiohttp's."""
    tree = ast.parse(path.read_text())
    own = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {"_context"}  # the slot of `AppHandler`
    names: dict[str, set[str]] = {}
    for each in ast.walk(tree):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and is_private(each.attr, own):
            names.setdefault(each.value.id, set()).add(each.attr)
    return {name: used for name, used in names.items() if name != "self" or name in objects}


def is_private(name: str, own: set[str]) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in own


@pytest.mark.parametrize("module", [app_handler, app_server], ids=lambda module: module.__name__)
async def test_no_other_private_name_is_used(module: object) -> None:
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    used = USED[path.name]
    assert found(path, set(used)) == used, "a name that is used more, or no more: `USED` lists them"


async def test_aiohttp_has_them_all() -> None:
    there = await known()
    for file, objects in USED.items():
        for name, used in objects.items():
            gone = sorted(used - there[name])
            assert not gone, (
                f"aiohttp {aiohttp.__version__} has no {', '.join(gone)}: edge/adapters/{file} needs another way"
            )
    gone = [name for name in MODULE if not hasattr(web_protocol, name)]
    assert not gone, f"aiohttp {aiohttp.__version__} has no web_protocol.{', '.join(gone)}"
