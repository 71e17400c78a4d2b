"""What both corpora run against: one gateway process before one scripted origin, for a whole module.

One rule: the corpora know a port and an origin, nothing else, so that they can be pointed at another server. With
EDGE_CORPUS_PEER=nginx they run against nginx, which shows whether a surprise lies in the kit or in the gateway (nginx
is less strict, so a part of the cases fails there by design).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from kit.builds import IS_COMPILED
from kit.nginx import NginxProcess
from kit.origin import ScriptedOrigin
from kit.ports import free_port
from kit.processes import GatewayProcess, gateway_toml
from subject import Subject

collect_ignore = [] if IS_COMPILED else ["test_builds.py"]  # it compares the compiled build with the source

LIMITS = 'max_body = "64KiB"'
POOL = 'timeouts = { connect = "10s", first_byte = "30s", head = "30s", body = "30s" }'
SILENT = """cache = false
[[routes]]
path = "/silent"
pool = "origin"
cache = false
timeouts = { first_byte = "1s", head = "2s", body = "1s" }
"""  # for origins that fall silent: nobody else is to be quick


@pytest.fixture(scope="module")
def origin_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def subject_process(
    origin_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess | NginxProcess]:
    directory: Path = tmp_path_factory.mktemp("subject")
    process: GatewayProcess | NginxProcess
    if os.environ.get("EDGE_CORPUS_PEER") == "nginx":
        directory.chmod(0o755)  # nginx's workers may run as another user
        process = NginxProcess.before(origin_port, directory)
    else:
        process = GatewayProcess.start(gateway_toml(origin_port, limits=LIMITS, pool=POOL, route=SILENT), directory)
    yield process
    process.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_origin(origin_port: int) -> AsyncIterator[ScriptedOrigin]:
    scripted = ScriptedOrigin(origin_port)
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def subject(
    subject_process: GatewayProcess | NginxProcess, module_origin: ScriptedOrigin
) -> AsyncIterator[Subject]:
    """The server, its origin cleared of the case before."""
    module_origin.forget()
    yield Subject(subject_process.http_port, module_origin)
