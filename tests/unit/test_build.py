"""`edge --version` says which build runs, and the list of what is compiled names files that are there."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator
from inspect import isroutine
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import edge.http.grammar
from edge import __version__
from edge.cli.main import main
from edge.dataplane.caching.part import PartExchange
from edge.dataplane.client.http2_exchange import StreamExchange
from edge.dataplane.core.exchange import Exchange

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
    before it, where `__unix` is taken; `copy` and `pickle` make no object whose `__init__` wants something."""
    words = "|".join(
        (
            *(r"self\._(?:unix|linux)\b", r"\bis (?:not )?inf\b", r"super\(\)\.__init__\(\*", "runtime_checkable"),
            *("__slots__", r"\.__dict__", r"vars\(", r"ignore\[method-assign\]", r"(?:from|import) (?:copy|pickle)\b"),
        )
    )
    gone = re.compile(rf"^(?!    __slots__ = ).*({words})", re.M)
    for path in compiled.modules(ROOT):
        found = gone.search(compiled.without_slots((ROOT / path).read_text()))
        assert found is None, f"{path}: {found[0]}"


def test_no_method_is_put_on_an_exchange() -> None:
    """Who stands between a response and its client has a place of the exchange's own (`coder`, `pace`): methods of a
    compiled class cannot be replaced, and are called without a look at the object."""
    kinds = (Exchange, StreamExchange, PartExchange)
    methods = {name for kind in kinds for name, found in vars(kind).items() if isroutine(found)}
    put = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in sorted((ROOT / "edge").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in methods
        if re.search(r"exchange|shadow|asked|part\b", ast.unparse(node.value))
    ]
    assert {"body", "end", "send"} <= methods
    assert put == []


def test_no_attribute_is_none_without_a_word_of_what_it_may_become(compiled: ModuleType) -> None:
    """mypyc takes None for its type then, and refuses all else from whoever sets it through a Protocol."""
    trees = [ast.parse((ROOT / path).read_text()) for path in compiled.modules(ROOT)]
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    set_to_none = {(name, each) for name, kind in classes.items() for each, is_none in _attributes(kind) if is_none}
    assert [pair for pair in sorted(set_to_none) if pair[1] not in _with_a_type(classes[pair[0]], classes)] == []


def _attributes(kind: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """What is set on `self`, and whether to None without a type that is written out."""
    for node in ast.walk(kind):
        if isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target).removeprefix("self."), False
        elif isinstance(node, ast.Assign):
            for left, right in (pair for target in node.targets for pair in _pairs(target, node.value)):
                if re.fullmatch(r"self\.\w+", ast.unparse(left)):
                    yield ast.unparse(left).removeprefix("self."), ast.unparse(right) == "None"


def _pairs(target: ast.expr, value: ast.expr) -> Iterable[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return zip(target.elts, value.elts, strict=True)
    return [(target, value)]


def _with_a_type(kind: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """The attributes that a class, or what it inherits from, sets to more than None."""
    bases = (classes[name] for name in map(ast.unparse, kind.bases) if name in classes)
    return {name for name, is_none in _attributes(kind) if not is_none}.union(
        *(_with_a_type(base, classes) for base in bases)
    )


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
