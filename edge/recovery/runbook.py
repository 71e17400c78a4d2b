"""Runbooks: a procedure as typed steps, read from TOML and checked as a whole before anything is done.

    name, description
    [parameters.<name>]  help, default (left out: must be given)
    [[steps]]            name, do = one of DEEDS, the deed's own keys, timeout, when = a check, retries of a check

    check = { ready = true }                                 the gateway answers and every worker listens
            { stopped = true }                               no gateway holds the state directory
            { region = "eu", health = "healthy" }            also admin, in_flight (at most)
            { points = 1 }                                   sound recovery points, at least
            { config = true }                                the configuration file is one that this program accepts
            { survives = "eu" }                              with this region lost, every route has one that serves
            { url = "http://www.example.com/", status = 200 }  asked of the gateway's own listener

One rule: a step is one of these and nothing else: no shell, no code. `{parameter}` in a text is replaced once, and what
a parameter holds is never read as anything but text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any

from edge.config.types import parse_timeout
from edge.errors import RunbookFailed


class Deed(Enum):
    """What a step can do."""

    CHECK = "check"
    DRAIN = "drain"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    WARM = "warm"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    DRILL = "drill"


# keys of each deed: (required, optional)
KEYS: dict[Deed, tuple[frozenset[str], frozenset[str]]] = {
    Deed.CHECK: (frozenset({"check"}), frozenset()),
    Deed.DRAIN: (frozenset({"region"}), frozenset({"force"})),
    Deed.ACTIVATE: (frozenset({"region"}), frozenset()),
    Deed.DEACTIVATE: (frozenset({"region"}), frozenset({"force"})),
    Deed.WARM: (frozenset({"file"}), frozenset()),
    Deed.SNAPSHOT: (frozenset(), frozenset({"kind"})),
    Deed.RESTORE: (frozenset(), frozenset({"what", "point"})),
    Deed.DRILL: (frozenset(), frozenset({"point"})),
}
CHECKS: dict[str, frozenset[str]] = {
    "ready": frozenset(),
    "stopped": frozenset(),
    "region": frozenset({"health", "admin", "in_flight"}),
    "points": frozenset(),
    "config": frozenset(),
    "survives": frozenset(),
    "url": frozenset({"status"}),
}
COMMON = frozenset({"name", "do", "timeout", "when"})
TIMEOUT_S = 60.0
_FIELD = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that is checked; `what` is one of CHECKS."""

    what: str
    value: Any
    more: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = "".join(f", {name} = {value}" for name, value in self.more.items())
        return f"{self.what} = {self.value}{facts}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `when`: the condition for beginning it; if it does not hold, the run ends there and changes nothing."""

    name: str
    deed: Deed
    values: Mapping[str, Any]
    timeout_s: float
    when: Check | None = None
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Runbook:
    """A whole procedure. `parameters`: name to (help, default or None)."""

    name: str
    description: str
    parameters: Mapping[str, tuple[str, str | None]]
    steps: tuple[Step, ...]


def read_runbook(text: str, source: str) -> Runbook:
    """A runbook from TOML. Raises RunbookFailed with every problem."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunbookFailed(f"{source}: not valid TOML: {error}") from None
    problems: list[str] = []
    _known(raw, {"name", "description", "parameters", "steps"}, "", problems)
    parameters = _parameters(raw.get("parameters", {}), problems)
    steps = raw.get("steps")
    if not isinstance(steps, list) or not steps:
        problems.append("steps: there is none")
        steps = []
    made = [_step(each, f"steps[{at}]", parameters, problems) for at, each in enumerate(steps)]
    names = [step.name for step in made if step is not None]
    problems += [f"steps: {name!r} is the name of two" for name in {each for each in names if names.count(each) > 1}]
    for key in ("name", "description"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            problems.append(f"{key}: is missing")
    if problems:
        raise RunbookFailed("; ".join(f"{source}: {problem}" for problem in problems))
    return Runbook(raw["name"], raw["description"], parameters, tuple(step for step in made if step is not None))


def filled(book: Runbook, given: Mapping[str, str]) -> Runbook:
    """The runbook with its parameters' values. Raises RunbookFailed for one that is missing or unknown."""
    unknown = [name for name in given if name not in book.parameters]
    if unknown:
        raise RunbookFailed(f"{book.name}: there is no parameter {unknown[0]}; known: {', '.join(book.parameters)}")
    values = {name: given.get(name, default) for name, (_, default) in book.parameters.items()}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise RunbookFailed(f"{book.name}: give --set {missing[0]}=… ({book.parameters[missing[0]][0]})")
    texts = {name: str(value) for name, value in values.items()}
    return Runbook(
        book.name, book.description, book.parameters, tuple(_filled_step(each, texts) for each in book.steps)
    )


def _filled_step(step: Step, texts: Mapping[str, str]) -> Step:
    values = {name: _filled(value, texts) for name, value in step.values.items()}
    return Step(
        step.name, step.deed, values, step.timeout_s, _filled_check(step.when, texts), _filled_check(step.check, texts)
    )


def _filled_check(check: Check | None, texts: Mapping[str, str]) -> Check | None:
    if check is None:
        return None
    more = {name: _filled(value, texts) for name, value in check.more.items()}
    return Check(check.what, _filled(check.value, texts), more)


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    return _FIELD.sub(lambda found: texts[found[1]], value) if isinstance(value, str) else value


def _parameters(raw: Any, problems: list[str]) -> dict[str, tuple[str, str | None]]:
    found: dict[str, tuple[str, str | None]] = {}
    for name, value in raw.items() if isinstance(raw, dict) else ():
        if not isinstance(value, dict) or not re.fullmatch("[a-z_]+", name):
            problems.append(f"parameters.{name}: must be a table, its name lower-case letters")
            continue
        _known(value, {"help", "default"}, f"parameters.{name}.", problems)
        default = value.get("default")
        found[name] = (str(value.get("help", "")), None if default is None else str(default))
    return found


def _step(raw: Any, path: str, parameters: Mapping[str, object], problems: list[str]) -> Step | None:
    words = [deed.value for deed in Deed]
    if not isinstance(raw, dict) or raw.get("do") not in words:
        problems.append(f"{path}.do: must be one of {', '.join(words)}")
        return None
    deed = Deed(raw["do"])
    required, optional = KEYS[deed]
    _known(raw, COMMON | required | optional, f"{path}.", problems)
    problems.extend(f"{path}.{name}: is missing" for name in sorted(required - raw.keys()))
    when = _check(raw["when"], f"{path}.when", problems) if "when" in raw else None
    check = _check(raw["check"], f"{path}.check", problems) if "check" in raw else None
    for name in _FIELD.findall(str(raw)):
        if name not in parameters:
            problems.append(f"{path}: there is no parameter {name}")
    try:
        timeout_s = parse_timeout(raw["timeout"]) if "timeout" in raw else TIMEOUT_S
    except ValueError as error:
        problems.append(f"{path}.timeout: {error}")
        timeout_s = TIMEOUT_S
    values = {name: raw[name] for name in (required | optional) & raw.keys() if name != "check"}
    return Step(str(raw.get("name") or path), deed, values, timeout_s, when, check)


def _check(raw: Any, path: str, problems: list[str]) -> Check | None:
    what = next((name for name in CHECKS if isinstance(raw, dict) and name in raw), None)
    if what is None:
        problems.append(f"{path}: must be a table with one of {', '.join(CHECKS)}")
        return None
    _known(raw, {what} | CHECKS[what], f"{path}.", problems)
    return Check(what, raw[what], {name: value for name, value in raw.items() if name != what})


def _known(raw: Mapping[str, Any], known: set[str] | frozenset[str], prefix: str, problems: list[str]) -> None:
    for name in raw:
        if name not in known:
            near = get_close_matches(name, known, 1)
            problems.append(f"{prefix}{name}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
