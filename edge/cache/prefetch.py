"""Prefetch: what might be asked for next, whether it may be fetched now, and what an operator wants warmed. Pure.

    link_targets     `Link: <…>; rel=prefetch|preload` of a cached response → targets of the same origin
    Sequence         `/seg-{n}.ts`: a request for n → the target of n + 1
    Gate             may one more fetch start? Own concurrency, a hard share of origin requests, off under load, during
                     failover, and while its precision (used / fetched) is below a floor
    parse_warm_list  one URL a line, or a JSON list; all errors at once, by line

The rule: a prefetch is never worth a client's request, so every doubt refuses, by name.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from json import JSONDecodeError, loads

from edge.errors import BadRequest

MAX_TARGETS = 32
MAX_PIECES = 256  # links and parameters that are read of one response
MAX_REFERENCE = 8192
MAX_WARM = 1_000_000
_MAX_NUMBER_DIGITS = 12

# Possessive throughout: what was read once is never read again, whatever follows.
_PARAMETER = re.compile(
    rb"\s*+;\s*+([^\s=;,<>\"]++)(?:\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s;,\"]*+)))?+", re.DOTALL
)
_LINK_END = re.compile(rb"\s*+(?:,|\Z)")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*\Z")  # visible, no fragment
_RELS = frozenset({b"prefetch", b"preload"})


def link_targets(values: Iterable[bytes], scheme: bytes, authority: bytes, target: bytes) -> list[bytes]:
    """Targets (path and query) that a response's Link values (RFC 8288) name on its own origin, in order, each once.

    Links with an `anchor` speak of another resource; those with `crossorigin=use-credentials` want what is not shared.
    """
    found: dict[bytes, None] = {}
    for reference, parameters in _links(values):
        if not _RELS & set(parameters.get(b"rel", b"").lower().split()) or b"anchor" in parameters:
            continue
        if parameters.get(b"crossorigin", b"").lower() == b"use-credentials":
            continue
        next_target = _same_origin(reference.strip(), scheme, authority, target)
        if next_target is not None and next_target != target:
            found[next_target] = None
        if len(found) == MAX_TARGETS:
            break
    return list(found)


def _links(values: Iterable[bytes]) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Each link with its parameters, read once from left to right, MAX_PIECES in all; broken ones are passed over."""
    pieces = 0
    for value in values:
        at = 0
        while pieces < MAX_PIECES:
            end = value.find(b">", at)
            start = value.rfind(b"<", at, end) if end >= 0 else -1
            if end < 0:
                break
            at = end + 1
            if start < 0:
                pieces += 1
                continue
            parameters: dict[bytes, bytes] = {}
            while pieces < MAX_PIECES and (parameter := _PARAMETER.match(value, at)) is not None:
                name, quoted, plain = parameter.groups(b"")
                parameters.setdefault(name.lower(), quoted or plain)  # the first rel counts (3.3)
                at, pieces = parameter.end(), pieces + 1
            pieces += 1
            if (over := _LINK_END.match(value, at)) is not None:
                at = over.end()
                yield value[start + 1 : end], parameters


def _same_origin(reference: bytes, scheme: bytes, authority: bytes, target: bytes) -> bytes | None:
    """A reference resolved against scheme://authority/target (RFC 3986 5.2); None if elsewhere or not clean."""
    reference = reference.partition(b"#")[0]
    if not reference or len(reference) > MAX_REFERENCE:
        return None
    if _SCHEME.match(reference):
        given, _, rest = reference.partition(b":")
        if given.lower() != scheme or not rest.startswith(b"//"):
            return None
        reference = rest
    if reference.startswith(b"//"):
        host, slash, rest = reference[2:].partition(b"/")
        if host.lower() != authority.lower():
            return None
        reference = slash + rest or b"/"
    path = target.partition(b"?")[0]
    if reference.startswith(b"?"):
        reference = path + reference
    elif not reference.startswith(b"/"):
        reference = path[: path.rfind(b"/") + 1] + reference
    path, mark, query = reference.partition(b"?")
    resolved = _without_dots(path) + mark + query
    return resolved if _TARGET.match(resolved) else None


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 5.2.4 for a path that starts with a slash."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


class Sequence:
    """A pattern of targets with one running number, `/live/seg-{n}.ts`; `*` stands for anything but a slash."""

    __slots__ = ("_found", "pattern")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError, to be shown beside the pattern's place in the configuration."""
        if not pattern.startswith("/") or pattern.count("{n}") != 1:
            raise ValueError(f"a sequence starts with / and has {{n}} once: {pattern!r}")
        if any(segment.count("*") > 1 for segment in pattern.split("/")):  # two could share out a segment in many ways
            raise ValueError(f"a sequence has at most one * between two slashes: {pattern!r}")
        before, after = ("[^/]*".join(map(re.escape, part.split("*"))) for part in pattern.split("{n}"))
        self.pattern = pattern
        self._found = re.compile(rf"({before})([0-9]{{1,{_MAX_NUMBER_DIGITS}}})({after})\Z".encode())

    def next(self, target: bytes) -> bytes | None:
        """The target after this one, with the number as wide as before; None when the pattern does not match."""
        found = self._found.match(target)
        if found is None:
            return None
        number = b"%d" % (int(found[2]) + 1)
        return found[1] + number.rjust(len(found[2]), b"0") + found[3]


class PrefetchRefusal(Enum):
    """Why no prefetch starts now."""

    BUSY = "concurrency"
    SHARE = "share"
    LOAD = "load"
    FAILOVER = "failover"
    PRECISION = "precision"


@dataclass(frozen=True, slots=True)
class GateRules:
    """Limits. `share`: of all requests to origins in the last `window_s`; `floor`: of used / fetched."""

    concurrency: int = 4
    share: float = 0.1
    max_load: float = 0.7  # of what the caller calls full
    floor: float = 0.2
    sample: int = 50  # outcomes before precision is judged
    rest_s: float = 300.0  # off for so long after precision fell below the floor
    window_s: float = 60.0


class Gate:
    """Whether one more prefetch may start, and the record of what became of those that did.

    A fetched response is settled once: `used` when a client's request is answered by it, `wasted` when it leaves the
    store, or its freshness, unused.
    """

    def __init__(self, rules: GateRules) -> None:
        self.rules = rules
        self.running = 0
        self.fetched = 0  # since the start
        self.hits = 0
        self.refused = dict.fromkeys(PrefetchRefusal, 0)
        self._outcomes: deque[bool] = deque(maxlen=4 * rules.sample)
        self._sent: deque[list[float]] = deque()  # per second: [second, requests to origins, of these prefetches]
        self._off_until = float("-inf")

    @property
    def precision(self) -> float | None:
        """The share of settled prefetches that were used, over the latest ones; None while there are too few."""
        outcomes = self._outcomes
        return sum(outcomes) / len(outcomes) if len(outcomes) >= self.rules.sample else None

    def may_start(self, now: float, load: float, failing_over: bool = False) -> PrefetchRefusal | None:
        """None when a prefetch may start (then call `started`), otherwise the reason. `load` is 0 to 1."""
        refusal = self._refusal(now, load, failing_over)
        if refusal is not None:
            self.refused[refusal] += 1
        return refusal

    def _refusal(self, now: float, load: float, failing_over: bool) -> PrefetchRefusal | None:
        if failing_over:
            return PrefetchRefusal.FAILOVER
        if self.judge(now):
            return PrefetchRefusal.PRECISION
        if load > self.rules.max_load:
            return PrefetchRefusal.LOAD
        if self.running >= self.rules.concurrency:
            return PrefetchRefusal.BUSY
        self._forget(now)
        total, own = sum(sent[1] for sent in self._sent), sum(sent[2] for sent in self._sent)
        return PrefetchRefusal.SHARE if own + 1 > self.rules.share * (total + 1) else None

    def origin_request(self, now: float, count: int = 1) -> None:
        """Count requests that were sent to origins for clients."""
        self._count(now, count, 0)

    def started(self, now: float) -> None:
        """Count a prefetch that was sent."""
        self.running += 1
        self._count(now, 1, 1)

    def ended(self, stored: bool) -> None:
        """A prefetch ended. One that stored nothing counts as wasted."""
        self.running -= 1
        self.fetched += 1
        if not stored:
            self._outcomes.append(False)

    def used(self) -> None:
        """A client was answered by a prefetched response for the first time."""
        self.hits += 1
        self._outcomes.append(True)

    def wasted(self) -> None:
        """A prefetched response was never used."""
        self._outcomes.append(False)

    def judge(self, now: float) -> bool:
        """Switch prefetching off if its precision is below the floor. Returns whether it is off; after the rest it
        is tried again.
        """
        precision = self.precision
        if precision is not None and precision < self.rules.floor:
            self._off_until = now + self.rules.rest_s
            self._outcomes.clear()
        return now < self._off_until

    def why_off(self, now: float) -> str | None:
        """One line for people while prefetching has switched itself off."""
        if now >= self._off_until:
            return None
        return f"precision below {self.rules.floor:.0%}; off for {self._off_until - now:.0f} s more"

    def _count(self, now: float, total: int, own: int) -> None:
        second = float(int(now))
        if not self._sent or second > self._sent[-1][0]:
            self._sent.append([second, 0, 0])
        self._sent[-1][1] += total
        self._sent[-1][2] += own
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] <= now - self.rules.window_s:
            self._sent.popleft()


_WARM_URL = re.compile(r"https?://[A-Za-z0-9_.\-:\[\]]+(?:/[!-\"$-~]*)?\Z")


def parse_warm_list(text: str) -> list[str]:
    """URLs to fetch, in order, each once. A line that is empty or starts with # is passed over.

    Raises BadRequest whose detail has one line for each problem (the first twenty), with its number.
    """
    if text.lstrip().startswith("["):
        entries = _json_list(text)
    else:
        entries = [("line", number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        entries = [entry for entry in entries if entry[2] and not str(entry[2]).startswith("#")]
    if len(entries) > MAX_WARM:
        raise BadRequest(f"warm list: more than {MAX_WARM} URLs")
    problems = [
        f"warm list: {what} {number}: not an http(s) URL: {str(entry)[:80]!r}"
        for what, number, entry in entries
        if not isinstance(entry, str) or not _WARM_URL.match(entry)
    ]
    if problems:
        more = [f"warm list: and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise BadRequest("\n".join([*problems[:20], *more]))
    if not entries:
        raise BadRequest("warm list: no URL in it")
    return list(dict.fromkeys(str(entry) for _, _, entry in entries))


def _json_list(text: str) -> list[tuple[str, int, object]]:
    try:
        found = loads(text)
    except JSONDecodeError as error:
        raise BadRequest(f"warm list: line {error.lineno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        raise BadRequest("warm list: not a list of URLs") from None
    return [("entry", number, entry) for number, entry in enumerate(found, 1)]
