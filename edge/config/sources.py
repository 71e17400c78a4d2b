"""What a configuration is written in: a file, the files that it includes, and the environment that its texts name.

    each file ─► TOML ─► ${NAME} filled in ─► put together: tables are joined, lists of tables continued

One rule: nothing is lost and nothing wins: a value that two files give is a mistake, told at the second place. Where a
value came from is found again for each problem. No IO: the caller reads files and environment.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from edge.config.paths import Included, below, folder_of
from edge.config.positions import OTHER, Path, Position, Positions, Problem, dotted, element, scan, syntax_lines
from edge.errors import ConfigError

INCLUDE = "include"
DEEPEST = 32  # tables and lists within each other
_VARIABLE = re.compile(r"\$?\$\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.S)


@dataclass(frozen=True, slots=True)
class Sources:
    """A configuration as it is written. `files` are the texts that it includes, by name as seen from its folder."""

    filename: str
    text: str
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> str:
        """All of it, for who looks for something anywhere."""
        return "\n".join((self.text, *self.files.values()))


class SourceFile:
    """One file of the configuration, and where its keys stand."""

    def __init__(self, folder: str, own_name: str, text: str) -> None:
        self.own_name = own_name  # as seen from the main file
        self.name = below(folder, own_name)
        self.text = text
        self.raw: dict[str, Any] = {}
        self.starts: dict[Path, int] = {}  # lists that it continues, and how many elements are before its own
        self._positions: Positions | None = None

    @property
    def positions(self) -> Positions:
        """Where its keys stand."""
        if self._positions is None:
            self._positions = scan(self.text)
        return self._positions

    def local_path(self, path: Path) -> Path:
        """As much of a path of the whole as leads to something of this file, as it counts itself."""
        found: Path = ()
        at: Any = self.raw
        for depth, step in enumerate(path):
            if isinstance(at, list) and isinstance(step, int):
                step -= self.starts.get(path[:depth], 0)
                if not 0 <= step < len(at):
                    break
            elif not isinstance(at, dict) or step not in at:
                break
            at = at[step]
            found = (*found, step)
        return found


class Whole:
    """All files of a configuration, put together."""

    def __init__(self, sources: Sources) -> None:
        self.folder = folder_of(sources.filename)
        self.parts = [SourceFile("", sources.filename, sources.text)]
        self.parts += [SourceFile(self.folder, name, text) for name, text in sorted(sources.files.items())]
        self.raw: dict[str, Any] = {}

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        """Complete lines in the order of the texts, each once."""
        placed = {(*self._place(problem.path), self._message(problem)) for problem in problems}
        return [
            f"{self.parts[at].name}:{place.line}:{place.column} {name + ': ' if name else ''}{message}"
            for at, place, name, message in sorted(placed)
        ]

    def _message(self, problem: Problem) -> str:
        if not problem.other:
            return problem.message
        at, _, own = self._own(problem.other)
        where = "" if at == self._own(problem.path)[0] else f" in {self.parts[at].name}"
        return problem.message.replace(OTHER, element(own) + where)

    def _place(self, path: Path) -> tuple[int, Position, str]:
        at, position, own = self._own(path)
        return at, position, dotted(own)

    def _own(self, path: Path) -> tuple[int, Position, Path]:
        """In which file a path of the whole leads, where, and the path as that file counts."""
        owns = [part.local_path(path) for part in self.parts]
        at = max(range(len(owns)), key=lambda index: (len(owns[index]), -index))
        own = (*owns[at], *path[len(owns[at]) :])
        return at, self.parts[at].positions.find(own), own


def put_together(sources: Sources) -> Whole:
    """The tables of all files. Raises ConfigError with a line for each mistake."""
    whole = Whole(sources)
    problems = [line for part in whole.parts for line in _parsed(part, sources.environment)]
    if problems:
        raise ConfigError(problems)
    if len(whole.parts) == 1:
        whole.raw = whole.parts[0].raw
        return whole
    for part in whole.parts:
        first = part is whole.parts[0]
        raw = deepcopy(part.raw) if first else _included(part.raw, folder_of(part.own_name))
        clashes = list(_joined(whole, part, whole.raw, raw, ()))
        if not first and INCLUDE in part.raw:
            clashes.append(Problem((INCLUDE,), "only the main file may include others"))
        problems += _lines(part, clashes)
    if problems:
        raise ConfigError(problems)
    return whole


def _lines(part: SourceFile, problems: Iterable[Problem]) -> list[str]:
    """Problems of one file, by its own paths."""
    found = []
    for problem in problems:
        place = part.positions.find(problem.path)
        found.append(f"{part.name}:{place.line}:{place.column} {dotted(problem.path)}: {problem.message}")
    return found


def _parsed(part: SourceFile, environment: Mapping[str, str]) -> list[str]:
    """Read its TOML, and fill in what its texts name; a line for each mistake."""
    try:
        part.raw = tomllib.loads(part.text)
        _check_depth(part.raw)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return syntax_lines(part.name, part.text, said)
    if "${" not in part.text:
        return []
    problems: list[Problem] = []
    part.raw = _filled(part.raw, environment, (), problems)
    return _lines(part, problems)


def _check_depth(value: Any, left: int = DEEPEST) -> None:
    """Raise RecursionError past what any key needs: names with dots nest without end, and what is nested is copied."""
    if not left:
        raise RecursionError
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, left - 1)


def _filled(value: Any, environment: Mapping[str, str], path: Path, problems: list[Problem]) -> Any:
    """A value with `${NAME}` and `${NAME:-default}` in its texts filled in; `$${` stands for `${`."""
    if isinstance(value, dict):
        return {name: _filled(item, environment, (*path, name), problems) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environment, (*path, at), problems) for at, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def fill(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        named = _NAME.fullmatch(match[1])
        if named is None:
            problems.append(Problem(path, f"{match[0]} is no ${{NAME}} and no ${{NAME:-default}}; $${{ stands for ${{"))
            return ""
        found = environment.get(named[1], "")
        if not found and named[2] is None and named[1] not in environment:
            problems.append(
                Problem(path, f"{named[1]} is not in the environment; ${{{named[1]}:-default}} has a default")
            )
        return found or named[2] or ""

    return _VARIABLE.sub(fill, value)


def _included(value: Any, folder: str) -> Any:
    """A copy of a value whose texts know the folder of their file."""
    if isinstance(value, dict):
        return {name: _included(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [_included(item, folder) for item in value]
    return Included(value, folder) if isinstance(value, str) and folder else value


def _joined(whole: Whole, part: SourceFile, into: dict[str, Any], raw: dict[str, Any], path: Path) -> Iterator[Problem]:
    """Put a file's table into the one that is there."""
    for name, value in raw.items():
        here = (*path, name)
        if name not in into:
            into[name] = value
        elif isinstance(value, dict) and isinstance(into[name], dict):
            yield from _joined(whole, part, into[name], value, here)
        elif _tables(value) and _tables(into[name]):
            part.starts[here] = len(into[name])
            into[name] = [*into[name], *value]
        else:
            others = whole.parts[: whole.parts.index(part)]
            first = next(other for other in others if len(other.local_path(here)) == len(here))
            place = first.positions.find(here)
            yield Problem(here, f"given twice, first at {first.name}:{place.line}:{place.column}")


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
