"""The supervisor's side of the issuer: certificates by ACME are got, shown by every worker, and told of.

    issuer ─► "show these tokens" ─► every worker has them ─► ACK          (answered on any plain listener)
    issuer ─► certificate.issued ─► every worker reads the files again     (no connection is touched)

One rule: a listener never waits for a certificate. There is a file from the first moment on, self-signed until a better
one comes; and whatever fails, the last good one goes on being shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from edge.config.loader import Config
from edge.control.admin.errors import Conflict, Refusal, Unavailable, missing
from edge.control.companion import Companion
from edge.control.link import LinkLost, Refused
from edge.control.packing import pack
from edge.control.supervisor import Supervisor
from edge.frames import Frame, FrameKind, ack

ISSUER_MODULE = "edge.cli.issuer"


class Issuing:
    """Runs the issuer where a listener has `acme`. `lock` keeps reloads out while workers take certificates on."""

    def __init__(self, supervisor: Supervisor, lock: asyncio.Lock) -> None:
        self._all, self._lock = supervisor, lock
        self._process = Companion(ISSUER_MODULE, self._config_frame, self._frame, self._died)
        self._work: set[asyncio.Task[None]] = set()
        self.rows: list[dict[str, Any]] = []

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Keep an issuer running, if there is anything to issue."""
        self._process.wanted = certified(self._all.running.config)
        if self._process.wanted:
            self._process.start()

    async def stop(self) -> None:
        """End the issuer. An attempt that is cut off was written down."""
        await self._process.stop()
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def reload(self, config: Config, before: Config) -> None:
        """Take other names from a reloaded configuration, perhaps none."""
        self.start()
        if not self._process.wanted:
            self.rows = []
            self._process.replace("no listener has acme")
        elif self._process.link is not None:
            self._process.link.send(self._config_frame())

    def have_files(self, config: Config) -> None:
        """Something to show for every name. Blocking. Raises Refusal."""
        if not certified(config):
            return
        from edge.adapters.acme_files import orders, stand_in  # not cheap, and of use to few

        for order in orders(config):
            try:
                damaged = stand_in(order)
            except OSError as error:
                raise Refusal(f"{order.pem}: cannot be written: {error.strerror}", 422) from None
            if damaged is not None:
                self._all.events.add("certificate.damaged", {"name": order.name, "evidence": damaged})

    # -- asked -----------------------------------------------------------------------------------------------------

    def check(self, names: Sequence[str]) -> None:
        """Raises Refusal unless these names can be renewed."""
        config, link = self._all.running.config, self._process.link
        known = [name for each in config.listen.https if each.acme is not None for name in each.acme.names]
        if not known:
            raise Conflict("no listener has acme: there is nothing to renew by itself")
        for name in names:
            if name not in known:
                raise missing("name", name, known)
        if link is None or link.closed is not None:
            raise Unavailable("the process that gets certificates is not running just now; its events say why")

    async def renew(self, names: Sequence[str]) -> dict[str, Any]:
        """Ask for new certificates of these names, or of all; returns when every worker shows them. Raises Refusal."""
        self.check(names)
        assert self._process.link is not None
        try:
            found = await self._process.link.ask(FrameKind.ASK, {"names": list(names)})
        except (LinkLost, Refused) as error:
            raise Unavailable(error.detail) from None
        await asyncio.gather(*self._work)
        return found

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]:
        """The ACME gauges for `/metrics`."""
        found = []
        for row in self.rows:
            labels = {"name": row["name"], "directory": row["directory"]}
            for word, text, value in (
                ("failures", "Attempts that failed since it last went well", row["failures"]),
                ("next_attempt_timestamp_seconds", "When the certificate is asked for next", row["next_at"]),
                ("self_signed", "1 while nobody has signed it yet", row["self_signed"]),
            ):
                found.append((f"edge_acme_{word}", text, labels, float(value)))
        if self._process.kept:
            restarts = float(self._process.restarts)
            found.append(("edge_acme_issuer_restarts_total", "Issuers replaced", {}, restarts))
        return found

    # -- the process -----------------------------------------------------------------------------------------------

    def _config_frame(self) -> Frame:
        return Frame(FrameKind.CONFIG, {"config": pack(self._all.running.config)})

    def _died(self, code: int, again_in_s: float) -> None:
        self._all.events.add("certificate.issuer_died", {"code": code, "again_in_s": again_in_s})
        self._all.challenges = {}
        self._all.workers.send_all(Frame(FrameKind.CHALLENGES, {"tokens": {}}))

    def _frame(self, frame: Frame) -> None:
        if frame.kind is FrameKind.CERTIFICATES:
            self.rows = frame.body["rows"]
        elif frame.kind is FrameKind.ASK:
            self._do(self._show(frame))
        elif frame.kind is FrameKind.EVENT:
            facts = {key: value for key, value in frame.body.items() if key != "kind"}
            self._all.events.add(str(frame.body["kind"]), facts)
            if frame.body["kind"] == "certificate.issued":
                self._do(self.renewed())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="certificates")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _show(self, frame: Frame) -> None:
        """Every worker answers these tokens, those that start from now on too."""
        self._all.challenges = tokens = frame.body["tokens"]
        link = self._process.link
        try:
            await self._all.workers.tell(FrameKind.CHALLENGES, {"tokens": tokens})
            answer = ack(frame)
        except Refused as error:
            answer = ack(frame, error=error.detail)
        if link is not None:
            link.send(answer)

    async def renewed(self) -> None:
        """Every worker now uses the certificates in the files."""
        async with self._lock:
            try:
                await self._all.workers.tell(FrameKind.RENEWED, {})
            except Refused as error:
                self._all.events.add("certificate.not_shown", {"evidence": error.detail})


def certified(config: Config) -> bool:
    """Whether any listener gets certificates by ACME."""
    return any(each.acme is not None for each in config.listen.https)
