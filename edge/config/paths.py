"""Paths in a configuration: a relative one is below the folder of the file that it stands in.

One rule: a path is made the program's own where it is read, and nowhere else; whoever has a checked configuration opens
its paths as they are.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from edge.config.types import ValueKind, shown

_PATH = re.compile(r"[^\x00-\x1f\x7f]+")


class Included(str):
    """A text of a file that another one includes; `folder` is where it stands, as seen from there."""

    folder: str

    def __new__(cls, text: str, folder: str) -> Included:
        made = super().__new__(cls, text)
        made.folder = folder
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # what has been read needs no folder any more


class Below(str):
    """A path that the program can open; `written` is what it is as seen from the main file."""

    written: str

    def __new__(cls, path: str, written: str) -> Below:
        made = super().__new__(cls, path)
        made.written = written
        return made

    def __reduce__(self) -> tuple[type[Below], tuple[str, str]]:
        return Below, (str(self), self.written)


def below(folder: str, path: str) -> str:
    """A path as seen from a file in this folder."""
    return path if not folder or path.startswith("/") else f"{folder.rstrip('/')}/{path}"


def folder_of(name: str) -> str:
    """The folder in a file's name; empty where there is none."""
    folder, slash, _ = name.rpartition("/")
    return folder or slash


def written(path: str) -> str:
    """A path as seen from the main file."""
    return path.written if isinstance(path, Below) else path


def placed(path: str, value: object, info: ValidationInfo) -> str:
    """The path that was read from this value. The context's `folder` is the main file's."""
    own = below(value.folder, path) if isinstance(value, Included) else str(path)
    found = below((info.context or {}).get("folder", ""), own)
    return found if found == own else Below(found, own)


def parse_path(value: object, info: ValidationInfo) -> str:
    """A path, relative to the folder of its configuration file; nothing is opened."""
    if not isinstance(value, str) or _PATH.fullmatch(value) is None:
        raise ValueError(f"must be a path, got {shown(value)}")
    return placed(value, value, info)


FilePath = Annotated[str, PlainValidator(parse_path), ValueKind("path")]
