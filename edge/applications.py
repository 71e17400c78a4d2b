"""The applications of one worker: found by name in the configuration, loaded, and given to the pools as backends.

One rule: an application is loaded once for each worker, however many backends name it, and a configuration without one
never imports aiohttp's server into a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edge.adapters.app_check import APP, code_of, folders
from edge.adapters.app_check import HOOK as HOOKS
from edge.adapters.app_faults import BLOCKED, HOOK, Faults
from edge.config.loader import Config
from edge.dataplane.caching.instead import answer_instead
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.onward import TIMEOUTS, Means, Onward
from edge.dataplane.rules.compiled import RuleSet
from edge.dataplane.rules.hooks import Hook, with_hooks
from edge.errors import ConfigError
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Connection, Timeouts

if TYPE_CHECKING:
    from edge.adapters.app_link import AppLink
    from edge.adapters.app_server import AppServer
    from edge.adapters.hook_loading import HookFunctions
    from edge.adapters.loop_watchdog import Blocked, LoopWatchdog
    from edge.dataplane.worker.worker import Worker

NOTHING_GIVEN: Mapping[str, object] = MappingProxyType({})


def hooked(config: Config) -> list[str]:
    """The hooks that routes name, each once."""
    return list(dict.fromkeys(name for route in config.routes for name in route.hooks))


def named(config: Config) -> list[str]:
    """The applications that backends name, each once."""
    return list(dict.fromkeys(each.app for pool in config.pools.values() for each in pool.backends if each.app))


class Applications:
    """`worker` is set before a request comes; links are made before that."""

    def __init__(
        self,
        config: Config,
        filename: str,
        head: Limits,
        memo: Memo[ResponseFacts],
        given: Mapping[str, object] = NOTHING_GIVEN,
    ) -> None:
        """Import them, but for those that are given by name. Raises ConfigError with a line for each that cannot be."""
        # Only a worker that runs one pays for it.
        from edge.adapters.app_server import AppServer, AppUnusable, as_application, find
        from edge.adapters.hook_loading import as_hook
        from edge.adapters.inner_link import InnerLink

        self.worker: Worker = None  # type: ignore[assignment]
        self._head, self._memo = head, memo
        self._servers: dict[str, AppServer] = {}
        self._hooks: dict[str, Hook] = {}
        self._faults: dict[str, Faults] = {}
        self._watchdog: LoopWatchdog | None = None
        problems = []
        for name in named(config):
            try:
                found = given[name] if name in given else find(name, folders(config.python_path, filename))
                self._servers[name] = AppServer(name, as_application(found, name), self._view, self._tell)
            except AppUnusable as error:
                problems.append(f"{filename}: {error.detail}")
        for name in hooked(config):
            try:
                found = given[name] if name in given else find(name, folders(config.python_path, filename))
                self._hooks[name] = self._hook(name, as_hook(found, name))
            except AppUnusable as error:
                problems.append(f"{filename}: {error.detail}")
        if problems:
            raise ConfigError(problems)
        names = [*(f"{APP} {name}" for name in named(config)), *(f"{HOOKS} {name}" for name in hooked(config))]
        self.code = code_of(names, folders(config.python_path, filename))  # which code is loaded
        self._inner = InnerLink(TIMEOUTS, head, memo)

    def _hook(self, name: str, functions: HookFunctions) -> Hook:
        faults = self._faults[name] = Faults(name, self._tell)

        def told(evidence: str, request_id: str, error: BaseException | None) -> None:
            if error is not None:
                faults.raised(error, request_id)
            else:
                faults.add(HOOK, request_id, evidence)

        return Hook(name, functions, told, faults)

    def with_hooks(self, names: Sequence[str], does: RuleSet) -> RuleSet:
        """A route's rules, and its hooks after them."""
        return with_hooks([self._hooks[name] for name in names], does, answer_instead)

    async def start(self) -> None:
        """Run their start, and watch from then on. Raises ConfigError."""
        from edge.adapters.app_guard import culprit_of
        from edge.adapters.app_server import AppUnusable, files_of
        from edge.adapters.loop_watchdog import LoopWatchdog

        for server in self._servers.values():
            try:
                await server.start()
            except AppUnusable as error:
                raise ConfigError([error.detail]) from None
        files = {place: name for name in (*self._hooks, *self._servers) for place in files_of(name)}
        self._watchdog = LoopWatchdog(lambda frame: culprit_of(frame, files), self._blocked)
        self._watchdog.start()

    def _blocked(self, blocked: Blocked) -> None:
        culprit = blocked.culprit
        faults = self.faults()[culprit.app]
        faults.blocked_s += blocked.seconds
        text = f"nothing else ran for {blocked.seconds * 1000:.0f} ms: {culprit.at}"
        faults.add(BLOCKED, culprit.request_id, text, blocked.stack)

    async def stop(self) -> None:
        """Run the applications' clean-up."""
        if self._watchdog is not None:
            self._watchdog.stop()
        for server in self._servers.values():
            await server.stop()

    async def probe(self, name: str, path: str, host: str, timeout_s: float) -> dict[str, Any]:
        """Ask an application's health path. Raises KeyError for one that does not run here."""
        from edge.app_probe import ask

        return await ask(self.backend_link(name, TIMEOUTS), self.worker, path, host, timeout_s)

    def words(self) -> dict[str, dict[str, int]]:
        """The counters of each application, by metric."""
        found: dict[str, dict[str, int]] = {"app_requests": {}, "app_faults": {}, "app_blocked_ms": {}, "app_own": {}}
        for name, faults in self.faults().items():
            found["app_requests"][name] = faults.requests
            found["app_blocked_ms"][name] = int(faults.blocked_s * 1000)
            found["app_faults"].update((f"{name}\t{fault}", count) for fault, count in faults.counts.items())
            found["app_own"].update((f"{name}\t{own}", count) for own, count in faults.own.items())
        return found

    def faults(self) -> dict[str, Faults]:
        """Faults and requests of each application, by name."""
        return {**self._faults, **{name: server.faults for name, server in self._servers.items()}}

    def backend_link(self, name: str, timeouts: Timeouts, time_limit: float = 0.0) -> AppLink:
        """The link of a backend that is this application."""
        from edge.adapters.app_link import AppLink

        server = self._servers[name]
        return AppLink(server.protocol, timeouts, self._head, self._memo, server.faults, time_limit)

    # -- what applications ask -------------------------------------------------------------------------------------

    def _view(self, faults: Faults) -> Callable[[Any], Onward]:
        return partial(Onward, Means(faults.app, self._dial, self._tell, faults))

    def _tell(self, kind: str, facts: dict[str, Any]) -> None:
        self.worker.tell(kind, facts)

    def _dial(self, asked_by: tuple[bytes, ...], client: str) -> Connection:
        """A connection to the gateway itself, in the name of this client."""
        from edge.adapters.inner_link import InnerConnection
        from edge.adapters.memory_transport import join

        connection = self._inner.take_for(client)
        if connection is None:
            downstream = ClientConnection(self.worker)
            connection = InnerConnection(self._inner, client, downstream)
            self._inner.connections.add(connection)
            join(connection, downstream, server_extra={"peername": (client, 0)})
        connection.gateway.asked_by = asked_by
        return connection
