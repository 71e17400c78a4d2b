"""Where each key of a TOML text stands, for lines such as `file:line:column key: what is wrong`.

`tomllib` decides what a text means and keeps no positions. The scanner below walks the same text a second time and
only records where keys begin. It never refuses: on a text that `tomllib` does not take it stops or skips, so that
what it found so far can still name a duplicate.

Paths are as in the parsed value: ("pools", "web", "backends", 2, "weight"). The part of a table header or a dotted
key that first names a table gives that table's position; an element of a list has the position of its first byte; an
element of an array of tables that of its `[[…]]` name. Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.S,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_DEPTH = 64  # nesting beyond this is not configuration


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the text, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one key. `OTHER` in the message stands for what is at `other`."""

    path: Path
    message: str
    other: Path = ()


OTHER = "{other}"


class Positions:
    """The scanner's findings."""

    __slots__ = ("_starts", "duplicates", "places")

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.places: dict[Path, Position] = {}
        self.duplicates: list[tuple[Path, Position, Position]] = []  # path, the second place, the first

    def at(self, offset: int) -> Position:
        """Line and column of an offset."""
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= offset else (low, middle)
        return Position(low + 1, offset - self._starts[low] + 1)

    def find(self, path: Path) -> Position:
        """The position of a key or, where the text does not hold it, of the nearest table round it."""
        for length in range(len(path), 0, -1):
            if (found := self.places.get(path[:length])) is not None:
                return found
        return Position(1, 1)


def scan(text: str) -> Positions:
    """The positions of all keys and elements of a TOML text."""
    return _Scanner(text).run()


class _Scanner:
    """One walk over a text. `_at` is the offset of the next unread character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found = Positions(text)
        self._counts: dict[Path, int] = {}  # arrays of tables and how many elements each has
        self._defined: dict[Path, Position] = {}  # what may not be given again: values and table headers
        self._table: Path = ()

    def run(self) -> Positions:
        """Statement by statement to the end, or to what is no statement."""
        while self._skip(_BLANK) and self._at < len(self._text):
            if not (self._header() if self._text[self._at] == "[" else self._pair(self._table, 0)):
                break
        return self._found

    # -- statements ----------------------------------------------------------------------------------------------------

    def _header(self) -> bool:
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        keys = self._keys()
        if not keys or not self._take("]]" if array else "]"):
            return False
        path = self._enter((), keys[:-1])
        name, place = keys[-1]
        path = (*path, name)
        self._note(path, place)
        if array:
            self._counts[path] = self._counts.get(path, 0) + 1
            path = (*path, self._counts[path] - 1)
            self._note(path, place)
        else:
            self._define(path, place)
        self._table = path
        return True

    def _pair(self, table: Path, depth: int) -> bool:
        keys = self._keys()
        if not keys or not self._take("="):
            return False
        path = self._enter(table, keys[:-1])
        name, place = keys[-1]
        path = (*path, name)
        self._note(path, place)
        self._define(path, place)
        self._skip(_SPACE)
        return self._value(path, depth)

    def _keys(self) -> list[tuple[str, Position]]:
        """A dotted key; empty when there is none."""
        keys: list[tuple[str, Position]] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            match = _BARE.match(self._text, start) or _STRING.match(self._text, start)
            if match is None:
                return []
            self._at = match.end()
            keys.append((_unquoted(match[0]), self._found.at(start)))
            self._skip(_SPACE)
            if not self._take("."):
                return keys

    def _enter(self, path: Path, keys: Iterable[tuple[str, Position]]) -> Path:
        """Walk down a dotted prefix; a name of an array of tables means its last element."""
        for name, place in keys:
            path = (*path, name)
            self._note(path, place)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    # -- values --------------------------------------------------------------------------------------------------------

    def _value(self, path: Path, depth: int) -> bool:
        if depth > _DEPTH or self._at >= len(self._text):
            return False
        first = self._text[self._at]
        if first == "[":
            return self._list(path, depth + 1)
        if first == "{":
            return self._inline(path, depth + 1)
        match = (_STRING if first in "\"'" else _SCALAR).match(self._text, self._at)
        if match is None:
            return False
        self._at = match.end()
        return True

    def _list(self, path: Path, depth: int) -> bool:
        self._at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self._take("]"):
                return True
            element = (*path, index)
            self._note(element, self._found.at(self._at))
            before = self._at
            if not self._value(element, depth):
                return False
            self._skip(_BLANK)
            if not self._take(",") and (self._at == before or not self._text.startswith("]", self._at)):
                return False
            index += 1

    def _inline(self, path: Path, depth: int) -> bool:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self._take("}"):
                return True
            if not self._pair(path, depth):
                return False
            self._skip(_BLANK)
            if not self._take(",") and not self._text.startswith("}", self._at):
                return False

    # -- notes ---------------------------------------------------------------------------------------------------------

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match is not None else self._at
        return True

    def _take(self, word: str) -> bool:
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        return True

    def _note(self, path: Path, place: Position) -> None:
        self._found.places.setdefault(path, place)

    def _define(self, path: Path, place: Position) -> None:
        first = self._defined.setdefault(path, place)
        if first is not place:
            self._found.duplicates.append((path, place, first))


def _unquoted(key: str) -> str:
    """The name that a key's text means."""
    if key[0] == "'":
        return key.strip("'")
    if key[0] != '"':
        return key
    try:
        return str(json.loads(re.sub(r"\\U0*([0-9A-Fa-f]{4})", r"\\u\1", key), strict=False))
    except ValueError:
        return key[1:-1]


# -- lines -------------------------------------------------------------------------------------------------------------


def dotted(path: Path) -> str:
    """`pools.api.backends[2].weight`; names that TOML would quote are quoted."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (part if _BARE.fullmatch(part) else json.dumps(part))
    return out


def element(path: Path) -> str:
    """`routes[0]`, `backends[1]`, `http[0]`: the nearest list element above a key."""
    at = max((index for index, part in enumerate(path) if isinstance(part, int)), default=0)
    return f"{path[at - 1]}[{path[at]}]" if at else ".".join(map(str, path))


_HINTS = {  # what is most often meant, by tomllib's own words
    "Invalid value": ' (a text needs quotes: "web")',
    "Expected newline or end of document after a statement": ' (a text needs quotes: "5s")',
}


def syntax_lines(filename: str, text: str, error: str) -> list[str]:
    """The lines for a text that is no TOML: each duplicate by name, else what `tomllib` said and where."""
    found = scan(text)
    if found.duplicates and re.match("Cannot (overwrite|declare)|Duplicate", error):
        return [
            f"{filename}:{place.line}:{place.column} {dotted(path)}: given twice, first at {first.line}:{first.column}"
            for path, place, first in found.duplicates
        ]
    match = re.fullmatch(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)", error, re.S)
    if match is not None:
        return [f"{filename}:{match[2]}:{match[3]} not valid TOML: {match[1]}{_HINTS.get(match[1], '')}"]
    end, what = found.at(len(text)), error.removesuffix(" (at end of document)")
    return [f"{filename}:{end.line}:{end.column} not valid TOML: {what}{_HINTS.get(what, '')}"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one is most like; None when none is like it."""
    by_form = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    from difflib import get_close_matches  # a start without mistakes has no use for it

    found = get_close_matches(name.lower().replace("-", "_"), by_form, 1, 0.6)
    return by_form[found[0]] if found else None
