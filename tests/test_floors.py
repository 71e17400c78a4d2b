"""The floors of the building, as a table: imports go down only, pure floors stay pure, files stay short and explained.

One rule: what `edge/README.md` draws is checked here and nowhere else. An import under `TYPE_CHECKING` counts: a name
that is known is a dependency. Parts of one floor do not see each other; inside a part (a package, or the files of F0
and of F6, which are one part each) everything may, as long as no circle comes of it. The rooms of the data path stand
in an order of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (  # F0 … F6; what stands alone in a pair of brackets is one part
    ("errors config metrics frames spans sdk seen __init__",),
    ("http", "http2"),
    ("cache", "balance", "recovery"),
    ("ports",),
    ("dataplane", "adapters"),
    ("control", "sidecar", "issuer"),
    ("cli app app_probe applications cache_rules observing upstreams worker_reload testing __main__",),
)
ROOMS = ("rules", "core", "upstream", "caching", "serve", "client", "worker")  # of the data path, the lowest first
IMPURE = "asyncio aiohttp uvloop socket ssl time os pathlib random threading logging".split()  # noqa: SIM905
PURE_FLOORS = range(4)
LONGEST = 400
FILES = sorted((ROOT / "edge").rglob("*.py"))


def place(module: str) -> tuple[int, int] | None:
    """(floor, part) of a dotted module below `edge`; None when the table does not know it."""
    word = module.split(".")[1] if "." in module else "__init__"
    for floor, parts in enumerate(FLOORS):
        for part, names in enumerate(parts):
            if any(Path(word).match(name) for name in names.split()):
                return floor, part
    return None


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever it stands. `from edge import x` names `edge.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [f"edge.{alias.name}" for alias in node.names] if node.module == "edge" else [node.module or ""]
            yield from ((node.lineno, "edge" if name.startswith("edge.__") else name) for name in names)


def breaches(path: Path) -> Iterator[str]:
    """Each breach as `file:line: what is wrong`."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if not ast.get_docstring(tree):
        yield f"{name}:1: no module docstring"
    if (count := text.count("\n")) > LONGEST:
        yield f"{name}:{LONGEST + 1}: {count} lines, more than {LONGEST}"
    own = place(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        yield f"{name}:1: stands on no floor"
        return
    for line, module in imports(tree):
        if own[0] in PURE_FLOORS and module.split(".")[0] in IMPURE:
            yield f"{name}:{line}: {module} on a pure floor"
        if module.split(".")[0] != "edge":
            continue
        there = place(module)
        if there is None or there[0] > own[0]:
            yield f"{name}:{line}: upward import of {module}"
        elif there[0] == own[0] and there[1] != own[1]:
            yield f"{name}:{line}: sideways import of {module}"
        elif room(module) > room(name.removesuffix(".py").replace("/", ".")) >= 0:
            yield f"{name}:{line}: import of {module}, a higher room"


def room(module: str) -> int:
    """Where a module of the data path stands; -1 for what is none."""
    words = module.split(".")
    return ROOMS.index(words[2]) if words[:2] == ["edge", "dataplane"] and words[2:3] != ["__init__"] else -1


def circle(root: Path) -> list[str]:
    """Modules that import each other in a circle; none where there is no circle."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / "edge").rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found = (named(node, files) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        graph[name] = {module for modules in found for module in modules} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def named(node: ast.AST, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules that an import names: `from a import b` is `a.b` where that is a module, else `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
    elif isinstance(node, ast.ImportFrom) and node.module in files:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in files else node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_floors(path: Path) -> None:
    found = list(breaches(path))
    assert not found, "\n" + "\n".join(found)


def test_no_circle_of_imports() -> None:
    assert circle(ROOT) == []


def test_a_circle_is_seen_also_where_types_make_it(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "a.py").write_text("from edge import b\n")
    (tmp_path / "edge" / "b.py").write_text("if TYPE_CHECKING:\n    from edge.a import A\n")
    (tmp_path / "edge" / "__init__.py").write_text("")
    assert set(circle(tmp_path)) == {"edge.a", "edge.b"}


def test_the_table_sees_breaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_floors.ROOT", tmp_path)
    bad = tmp_path / "edge" / "cache" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text(
        "from typing import TYPE_CHECKING\nimport os.path\nfrom edge.balance import pool\n"
        "from edge import app, errors\n"
        "if TYPE_CHECKING:\n    from edge.dataplane.client.connection import ClientConnection\n" + "\n" * LONGEST
    )
    assert [each.split(": ", 1)[0] for each in breaches(bad)] == [
        "edge/cache/bad.py:1",
        "edge/cache/bad.py:401",
        "edge/cache/bad.py:2",
        "edge/cache/bad.py:3",
        "edge/cache/bad.py:4",
        "edge/cache/bad.py:6",
    ]


def test_the_table_sees_a_higher_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_floors.ROOT", tmp_path)
    low = tmp_path / "edge" / "dataplane" / "upstream" / "low.py"
    low.parent.mkdir(parents=True)
    low.write_text('"""Low."""\nfrom edge.dataplane.core.route import Route\nfrom edge.dataplane.serve import serve\n')
    assert list(breaches(low)) == ["edge/dataplane/upstream/low.py:3: import of edge.dataplane.serve, a higher room"]
