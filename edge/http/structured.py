"""Structured Fields (RFC 9651): dictionaries and lists, read strictly.

One rule: any error anywhere makes the whole field invalid (None); nothing is half used. So does too much of anything:
no field that is read here has a use for more than MAX_MEMBERS members.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from enum import Enum

from edge.http.fields import MAX_MEMBERS

MAX_STEPS = 8 * MAX_MEMBERS  # pieces of text that are taken for one field


class ItemKind(Enum):
    """The types of bare items, and the inner list."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    STRING = "string"
    TOKEN = "token"
    BYTES = "bytes"
    BOOLEAN = "boolean"
    DATE = "date"
    DISPLAY = "display string"
    INNER_LIST = "inner list"


@dataclass(frozen=True, slots=True)
class Item:
    """One member's value. Parameters are checked and then forgotten: nothing here has a use for them."""

    kind: ItemKind
    value: int | float | bytes | bool | str | tuple[Item, ...]


TRUE = Item(ItemKind.BOOLEAN, True)
_KEY = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_NUMBER = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]*))?")
_STRING = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES = re.compile(rb":([A-Za-z0-9+/=]*):")
_DISPLAY = re.compile(rb'%"((?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_SP = re.compile(rb" *")
_OWS = re.compile(rb"[ \t]*")


class _Invalid(Exception):
    pass


def parse_dictionary(value: bytes) -> dict[bytes, Item] | None:
    """The members of a dictionary by key, the last of equal keys; None when invalid. Several lines: join them first."""
    reader = _Reader(value)
    found: dict[bytes, Item] = {}
    try:
        while reader.more():
            key = reader.take(_KEY)
            found.pop(key, None)
            if reader.skip(b"="):
                found[key] = reader.member()
            else:
                reader.parameters()
                found[key] = TRUE
            reader.comma()
    except _Invalid:
        return None
    return found


def parse_list(value: bytes) -> list[Item] | None:
    """The members of a list; None when invalid."""
    reader = _Reader(value)
    found: list[Item] = []
    try:
        while reader.more():
            found.append(reader.member())
            reader.comma()
    except _Invalid:
        return None
    return found


class _Reader:
    """A position in the text; each method reads one production of RFC 9651 4.2 or raises."""

    __slots__ = ("at", "members", "steps", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text.strip(b" ")
        self.at = 0
        self.members = 0
        self.steps = 0

    def more(self) -> bool:
        """Whether another member follows."""
        self.members += 1
        if self.members > MAX_MEMBERS + 1:
            raise _Invalid
        return self.at < len(self.text)

    def take(self, pattern: re.Pattern[bytes], group: int = 0) -> bytes:
        match = pattern.match(self.text, self.at)
        self.steps += 1
        if match is None or self.steps > MAX_STEPS:
            raise _Invalid
        self.at = match.end()
        return match[group]

    def skip(self, text: bytes) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def comma(self) -> None:
        """What stands between two members: a comma, and something after it."""
        self.take(_OWS)
        if self.at < len(self.text):
            if not self.skip(b","):
                raise _Invalid
            self.take(_OWS)
            if self.at >= len(self.text):
                raise _Invalid

    def member(self) -> Item:
        if self.skip(b"("):
            return self._inner_list()
        item = self._bare()
        self.parameters()
        return item

    def _inner_list(self) -> Item:
        items: list[Item] = []
        while True:
            self.take(_SP)
            if self.skip(b")"):
                self.parameters()
                return Item(ItemKind.INNER_LIST, tuple(items))
            items.append(self._bare())
            self.parameters()
            if self.text[self.at : self.at + 1] not in (b" ", b")"):
                raise _Invalid

    def parameters(self) -> None:
        while self.skip(b";"):
            self.take(_SP)
            self.take(_KEY)
            if self.skip(b"="):
                self._bare()

    def _bare(self) -> Item:
        first = self.text[self.at : self.at + 1]
        if first == b'"':
            return Item(ItemKind.STRING, re.sub(rb"\\(.)", rb"\1", self.take(_STRING, 1)))
        if first == b"?":
            return self._boolean()
        if first == b":":
            return self._bytes()
        if first == b"%":
            return self._display()
        if first == b"@":
            self.at += 1
            date = self._number()
            if date.kind is not ItemKind.INTEGER:
                raise _Invalid
            return Item(ItemKind.DATE, date.value)
        if first == b"-" or first.isdigit():
            return self._number()
        return Item(ItemKind.TOKEN, self.take(_TOKEN))

    def _number(self) -> Item:
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise _Invalid
        sign, whole, fraction = match.groups()
        self.at = match.end()
        if fraction is None:
            if len(whole) > 15:
                raise _Invalid
            return Item(ItemKind.INTEGER, int(sign + whole))
        if len(whole) > 12 or not 1 <= len(fraction) <= 3:
            raise _Invalid
        return Item(ItemKind.DECIMAL, float(match[0]))

    def _boolean(self) -> Item:
        if self.skip(b"?1"):
            return TRUE
        if self.skip(b"?0"):
            return Item(ItemKind.BOOLEAN, False)
        raise _Invalid

    def _bytes(self) -> Item:
        coded = self.take(_BYTES, 1).rstrip(b"=")
        try:
            return Item(ItemKind.BYTES, b64decode(coded + b"=" * (-len(coded) % 4), validate=True))
        except Base64Error:
            raise _Invalid from None

    def _display(self) -> Item:
        raw = re.sub(rb"%([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), self.take(_DISPLAY, 1))
        try:
            return Item(ItemKind.DISPLAY, raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise _Invalid from None
