"""`edge --version` says which build runs, and the list of what is compiled names files that are there."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import edge.http.grammar
from edge import __version__
from edge.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compiled", ROOT / "deploy" / "compiled.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_says_which_build_runs() -> None:
    kind = "pure Python" if edge.http.grammar.__file__.endswith(".py") else "compiled"
    assert CliRunner().invoke(main, ["--version"]).output == f"edge, version {__version__} ({kind})\n"


def test_what_is_compiled_is_there_and_what_is_left_out_has_a_reason(compiled: ModuleType) -> None:
    paths = compiled.modules(ROOT)
    assert "edge/dataplane/serve.py" in paths and "edge/http/grammar.py" in paths
    assert all((ROOT / path).is_file() for path in [*paths, *compiled.LEFT_OUT])
    assert all(compiled.LEFT_OUT.values())


def test_no_compiled_module_asks_for_what_compiling_takes_away(compiled: ModuleType) -> None:
    """A float has no identity; a class made by mypyc has no `__slots__` to look at, no `__dict__`, and no methods that
    can be replaced; its `super().__init__` takes no starred arguments; an attribute is a name in C with an underscore
    before it, where `__unix` is taken."""
    words = "|".join(
        (
            *(r"self\._(?:unix|linux)\b", r"\bis (?:not )?inf\b", r"super\(\)\.__init__\(\*"),
            *("__slots__", r"\.__dict__", r"vars\(", r"ignore\[method-assign\]", "runtime_checkable"),
        )
    )
    gone = re.compile(rf"^(?!    __slots__ = ).*({words})", re.M)
    for path in compiled.modules(ROOT):
        found = gone.search(compiled.without_slots((ROOT / path).read_text()))
        assert found is None, f"{path}: {found[0]}"


def test_no_class_has_a_default_that_compiling_would_drop(compiled: ModuleType) -> None:
    """mypyc leaves an attribute undefined whose class has None for it, where its type is no class that it knows."""
    trees = {path: ast.parse((ROOT / path).read_text()) for path in compiled.modules(ROOT)}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known = {each.name for each in classes if "Protocol" not in map(ast.unparse, each.bases)}
    known |= {"None", "str", "bytes", "int", "float", "bool", "tuple", "dict", "list", "set", "frozenset"}
    dropped = [
        f"{kind.name}.{ast.unparse(each)}"
        for kind in classes
        if not kind.decorator_list and "NamedTuple" not in map(ast.unparse, kind.bases)
        for each in kind.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.value, ast.Constant) and each.value.value is None
        if not known.issuperset(
            re.sub(r"\[.*?\]", "", part).strip() for part in ast.unparse(each.annotation).split("|")
        )
    ]
    assert not dropped


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("@dataclass(slots=True)", "@dataclass()"),
        ("@dataclass(frozen=True, slots=True)", "@dataclass(frozen=True)"),
        ("@dataclass(slots=True, eq=False)", "@dataclass(eq=False)"),
        ("@dataclass(frozen=True)", "@dataclass(frozen=True)"),
    ],
)
def test_a_dataclass_is_compiled_without_its_slots(compiled: ModuleType, line: str, wanted: str) -> None:
    assert compiled.without_slots(f"{line}\nclass A:\n") == f"{wanted}\nclass A:\n"
