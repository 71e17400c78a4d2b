"""Reading the schema: every key with its type, default and help; and pydantic's findings in this project's words.

One rule: whatever pydantic reports becomes one problem with the operator's path and one short sentence; the sentence
names what was expected and, for a name, the nearest one that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from edge.config.positions import Path, Problem, nearest
from edge.config.types import Section, ValueKind, shown


class Key(NamedTuple):
    """One key for people. `<name>` stands for a chosen name, `[]` for an element of a list."""

    key: str
    type: str
    default: str
    help: str


# -- the schema --------------------------------------------------------------------------------------------------------


def keys_of(section: type[Section], prefix: str = "") -> Iterator[Key]:
    """The keys of a table and of the tables in it, depth first."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        yield Key(path, _kind(field.annotation, field.metadata), _default(field), field.description or "")
        inner = _inner(field.annotation)
        if inner is not None:
            yield from keys_of(inner[0], f"{path}{inner[1]}.")


def _inner(annotation: Any) -> tuple[type[Section], str] | None:
    """The table type inside an annotation and how its path goes on: "", `[]` or `.<name>`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, ""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated or origin in (Union, UnionType):
        found = [inner for arg in args if (inner := _inner(arg)) is not None]
        return found[0] if found else None
    if origin in (tuple, dict) and (inner := _inner(args[-1] if origin is dict else args[0])) is not None:
        return inner[0], (".<name>" if origin is dict else "[]") + inner[1]
    return None


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """What a value is called."""
    for item in metadata:
        if isinstance(item, ValueKind):
            return item.name
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(args[0], [*metadata, *args[1:]])
    if origin in (Union, UnionType):
        return _kind(next(arg for arg in args if arg is not type(None)), metadata)
    if origin is Literal:
        return "one of " + ", ".join(_toml(arg) for arg in args)
    if origin is tuple:
        return f"list of {'tables' if _inner(args[0]) else _kind(args[0], [])}"
    if origin is dict:
        return "tables by name" if _inner(args[1]) else f"{_kind(args[1], [])} by {_kind(args[0], [])}"
    if _inner(annotation) is not None:
        return "table"
    return {bool: "true or false", int: "whole number", float: "number"}.get(annotation, "text") + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    bounds = [item for entry in metadata for item in (getattr(entry, "metadata", None) or [entry])]
    low = next((item.ge for item in bounds if hasattr(item, "ge")), None)
    return f" from {low}" if low is not None else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "" if "left out" in (field.description or "") else "required"
    return "" if field.default is None else _toml(field.default)


def _toml(value: object) -> str:
    """A default value, written as in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in value.items())} }}" if value else "{}"
    return str(value)


# -- problems ----------------------------------------------------------------------------------------------------------

_SHAPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "dict_type": "a table",
    "tuple_type": "a list",
}
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}


def problems_of(error: ValidationError, root: type[Section]) -> list[Problem]:
    """What pydantic found, in our words."""
    return [
        Problem(tuple(part for part in found["loc"] if part != "[key]"), _message(dict(found), root))
        for found in error.errors(include_url=False)
    ]


def _message(found: dict[str, Any], root: type[Section]) -> str:
    kind, value, context = found["type"], found.get("input"), found.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(tuple(found["loc"]), root)
    if kind == "missing":
        return "is missing" + _as_written(tuple(found["loc"]), root)
    if kind == "model_type":
        return f"must be a table{_such_as(section_at(root, tuple(found['loc'])))}, got {shown(value)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _SHAPES:
        return f"must be {_SHAPES[kind]}, got {shown(value)}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]}, got {shown(value)}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "literal_error":
        near = nearest(value, re.findall("'([^']*)'", context["expected"])) if isinstance(value, str) else None
        hint = f', did you mean "{near}"?' if near else ""
        return f"must be {context['expected'].replace(chr(39), chr(34))}, got {shown(value)}{hint}"
    return f"{found['msg'][:1].lower()}{found['msg'][1:]}, got {shown(value)}"


def _such_as(section: type[Section] | None) -> str:
    """What a table looks like, by the keys that it must have, or by its first ones."""
    if section is None:
        return ""
    must = [name for name, field in section.model_fields.items() if field.is_required()]
    return f" such as {{ {', '.join(f'{name} = …' for name in must or list(section.model_fields)[:2])} }}"


def _as_written(path: Path, root: type[Section]) -> str:
    """How the header of a table that is missing is written; nothing for what is no table."""
    field = root.model_fields.get(str(path[-1])) if len(path) == 1 else None
    inner = _inner(field.annotation) if field is not None else None
    if inner is None:
        return ""
    return f": write [[{path[0]}]]" if inner[1] == "[]" else f": write [{path[0]}{inner[1]}]"


def _unknown(path: Path, root: type[Section]) -> str:
    """For a key that its table does not have: the nearest that it has, or where a key of that name belongs."""
    name = str(path[-1])
    section = section_at(root, path[:-1])
    known = list(section.model_fields) if section is not None else []
    if near := nearest(name, known):
        return f'unknown key, did you mean "{near}"?'
    if inside := [key for key in known if name in key.split("_")]:
        return f"unknown key, did you mean {' or '.join(inside[:3])}?"
    elsewhere = [entry.key for entry in keys_of(root) if entry.key.rpartition(".")[2] == name]
    if elsewhere:
        return f"unknown key here; there is {' and '.join(elsewhere[:2])}"
    return f"unknown key, known here: {', '.join(known)}"


def section_at(root: type[Section], path: Path) -> type[Section] | None:
    """The table type at a path of a parsed file."""
    section, rest = root, list(path)
    while rest:
        field = section.model_fields.get(str(rest.pop(0)))
        inner = _inner(field.annotation) if field is not None else None
        if inner is None:
            return None
        section = inner[0]
        rest = rest[inner[1].count("[]") + inner[1].count("<name>") :]
    return section
