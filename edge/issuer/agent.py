"""What the issuer does by itself: certificates when they are due, one after another, and how each name stands.

    due? ─► attempt written down ─► server ─► certificate on disk ─► told, and every worker shows it
                                      └─ failed: written down, told, again later; what was there serves on

One rule: one order at a time. A job that takes longer than `JOB_S` hangs in a thread that nothing can end, so its
failure is written down and the process ends (`Hangs`); the next one goes on with the other names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from random import random
from time import time
from typing import Any

from edge.adapters import acme_files
from edge.adapters.acme_client import AcmeFailed, AcmeServer
from edge.adapters.acme_files import Attempts, Order
from edge.adapters.certificate_pem import life
from edge.errors import EdgeError
from edge.issuer import plan

LOOK_S = 60.0  # at least so often: clocks are set, files are replaced
JOB_S = 300.0
SUGGESTION_S = 6 * 3600.0  # when to ask about that again, where the server does not say

Tell = Callable[[str, Mapping[str, Any]], None]  # an event: kind, facts
Show = Callable[[Mapping[str, str]], Awaitable[object]]  # tokens; returns when every worker has them


class Hangs(EdgeError):
    """A job does not come to an end."""


class IssuerAgent:
    """`show` gives workers the tokens, `tell` takes events, `publish` how the names stand."""

    def __init__(
        self, orders: list[Order], show: Show, tell: Tell, publish: Callable[[list[dict[str, Any]]], None]
    ) -> None:
        self._show, self._tell, self._publish = show, tell, publish
        self._orders: dict[tuple[str, str], Order] = {}
        self._known: dict[tuple[str, str], Attempts] = {}
        self._one = asyncio.Lock()
        self._wake = asyncio.Event()
        self.want(orders)

    def want(self, orders: list[Order]) -> None:
        """Set the names that need certificates."""
        self._orders = {order.key: order for order in orders}
        self._known = {key: acme_files.attempts(order) for key, order in self._orders.items()}
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Raises Hangs."""
        while True:
            self._wake.clear()
            for key in list(self._orders):
                order = self._orders.get(key)  # a reload may have taken it out meanwhile
                if order is not None:
                    await self._look(order)
            self._publish(self.rows())
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._wake.wait()

    def _rest_s(self) -> float:
        now = time()
        soonest = [
            plan.soonest(acme_files.life_of(each), self._known[each.key], each.name, now)
            for each in self._orders.values()
        ]
        return max(0.1, min([now + LOOK_S, *soonest]) - now)

    async def renew(self, names: list[str]) -> dict[str, Any]:
        """Ask for these now, whatever the plan says. Raises AcmeFailed for the first that cannot be had."""
        done = []
        for order in list(self._orders.values()):
            if order.name in names or not names:
                await self._issue(order)
                done.append({"name": order.name, "directory": order.values.directory})
        self._publish(self.rows())
        return {"renewed": done}

    def rows(self) -> list[dict[str, Any]]:
        """The state of each name, for people."""
        return [self._row(order) for order in self._orders.values()]

    def _row(self, order: Order) -> dict[str, Any]:
        known, now = self._known[order.key], time()
        found = acme_files.life_of(order)
        return {
            "name": order.name,
            "directory": order.values.directory,
            "file": str(order.pem),
            "self_signed": found is None or found.self_signed,
            "ends_at": None if found is None else found.ends,
            "next_at": plan.next_at(found, known, order.name, now),
            "failures": known.failures,
            "failed_at": known.failed_at or None,
            "error": known.error or None,
        }

    # -- one name --------------------------------------------------------------------------------------------------

    async def _look(self, order: Order) -> None:
        now = time()
        found = acme_files.life_of(order)
        if plan.next_at(found, self._known[order.key], order.name, now) <= now:
            try:
                await self._issue(order)
            except AcmeFailed:
                pass  # told, and written down
        elif plan.soonest(found, self._known[order.key], order.name, now) <= now:
            await self._ask_suggestion(order)

    async def _issue(self, order: Order) -> None:
        """Raises AcmeFailed, told already; Hangs."""
        async with self._one:
            before = self._known.get(order.key, Attempts())
            try:
                self._note(order, plan.begun(before, time(), random()))
                pem = await self._worked(self._issued, order)
                acme_files.keep_certificate(order, pem)
                self._note(order, Attempts())
            except AcmeFailed as error:
                self._failed(order, before, error)
                raise
            except OSError as error:
                failure = AcmeFailed(f"{error.filename or order.pem}: {error.strerror}")
                self._failed(order, before, failure)
                raise failure from None
            except Hangs as error:
                self._failed(order, before, AcmeFailed(error.detail))
                raise
            days = (life(pem).ends - time()) / 86400
            self._tell("certificate.issued", {**_about(order), "days": round(days, 2), "file": str(order.pem)})

    def _issued(self, order: Order, loop: asyncio.AbstractEventLoop) -> bytes:
        def show(tokens: Mapping[str, str]) -> None:
            asyncio.run_coroutine_threadsafe(_awaited(self._show(tokens)), loop).result()

        return self._server(order).issue(order.name, show)

    async def _ask_suggestion(self, order: Order) -> None:
        """When the server would like it renewed; that it does not say is no failure."""
        known = self._known[order.key]
        self._known[order.key] = replace(known, ask_again_at=time() + SUGGESTION_S)
        try:
            at, again = await self._worked(self._suggestion, order)
        except (AcmeFailed, OSError) as error:
            self._tell("certificate.no_suggestion", {**_about(order), "evidence": str(error)})
            return
        changed = replace(known, suggested_at=at, ask_again_at=min(max(again, time() + 60), time() + 86400))
        if order.key in self._known:
            self._note(order, changed)

    def _suggestion(self, order: Order, loop: asyncio.AbstractEventLoop) -> tuple[float | None, float]:
        return self._server(order).suggestion(order.pem.read_bytes())

    async def _worked(self, job: Callable[[Order, asyncio.AbstractEventLoop], Any], order: Order) -> Any:
        """In a thread. Raises Hangs."""
        try:
            async with asyncio.timeout(JOB_S):
                return await asyncio.to_thread(job, order, asyncio.get_running_loop())
        except TimeoutError:
            raise Hangs(f"the server kept us for more than {JOB_S:g} s") from None

    def _server(self, order: Order) -> AcmeServer:
        return AcmeServer(
            order.values, acme_files.account(order), lambda account: acme_files.keep_account(order, account)
        )

    def _failed(self, order: Order, before: Attempts, error: AcmeFailed) -> None:
        after = plan.failed(before, error.detail, error.refused, error.wait_s, time(), random())
        try:
            self._note(order, after)
        except OSError as full:
            self._known[order.key] = after
            self._tell("certificate.not_kept", {**_about(order), "evidence": str(full)})
        again = {"failures": after.failures, "again_in_s": round(after.next_at - after.failed_at)}
        self._tell("certificate.failed", {**_about(order), **again, "evidence": error.detail})

    def _note(self, order: Order, attempts: Attempts) -> None:
        """Durable, then known. Raises OSError."""
        if order.key in self._orders:
            self._known[order.key] = attempts
        acme_files.keep_attempts(order, attempts)


def _about(order: Order) -> dict[str, Any]:
    return {"name": order.name, "directory": order.values.directory}


async def _awaited(work: Awaitable[object]) -> None:
    await work
