"""The optional compiled build: the hot modules of `edge` made into extension modules by mypyc.

    python deploy/compiled.py DIRECTORY     a copy of the tree in which the modules below are compiled; what follows
                                            is the C compiler's level of optimization, else 3
    make compiled                           a wheel that carries them (this file is hatchling's build hook for it)
    make test-compiled                      the tests, in the copy that the wheel was made from

One rule: the Python source is the truth. What is compiled is a copy of it, the source stays beside each extension, and
nothing in the source asks which of the two runs.
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[1]
GROUP = "streamgate"  # names the one library in which all of them are
COPIED = (
    *("edge", "tests", "bench", "deploy", "docs", "geoip", ".ci"),
    *("config.example.toml", "pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "LICENSE"),
)
# What a request passes. Not the rules of routes, which most requests pass none of and which call libraries that are
# compiled already, and nothing of F5 and F6: that is on no request.
PACKAGES = (
    *("http", "http2", "cache", "balance"),
    *("dataplane/core", "dataplane/upstream", "dataplane/caching", "dataplane/client", "dataplane/worker"),
)
MODULES = (
    *("metrics", "ports", "dataplane/serve"),
    *("adapters/upstream_connection", "adapters/backend_link", "adapters/logs"),
    *(
        "adapters/memory_link",
        "adapters/inner_link",
        "adapters/app_link",
        "adapters/service_link",
        "adapters/announcing_link",
    ),  # they are links
)
# What stays Python in these packages, and why.
LEFT_OUT = {
    "edge/dataplane/client/onward.py": "has an asynchronous generator; only applications use it",
    "edge/http2/huffman.py": "its states are lists with more to them, which mypyc cannot make",
}
_SLOTS = re.compile(r"^(@dataclass\(.*?)(?:, )?slots=True(?:, )?(.*\))$", re.MULTILINE)


def modules(root: Path) -> list[str]:
    """The files to be compiled, as paths below `root`."""
    found = [path.relative_to(root).as_posix() for name in PACKAGES for path in (root / "edge" / name).rglob("*.py")]
    found += [f"edge/{name}.py" for name in MODULES]
    return sorted(path for path in found if path not in LEFT_OUT and not path.endswith("/__init__.py"))


def files(root: Path) -> set[Path]:
    """What is copied of a tree."""
    found = [path for name in COPIED for path in (root / name, *(root / name).rglob("*")) if path.is_file()]
    known = {path.relative_to(root) for path in found if path.suffix not in (".so", ".pyc")}
    return {path for path in known if not {"sources", "results"} & set(path.parts)}


def mirror(root: Path, target: Path) -> None:
    """Bring the copy up to date; only what changed is written, for a compiler goes by the times of files."""
    wanted, compiled = files(root), set(modules(root))
    for path in files(target) - wanted:
        (target / path).unlink()
    for path in sorted(wanted):
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = (root / path).read_bytes()
        if path.as_posix() in compiled:
            data = without_slots(data.decode()).encode()
        if not copy.exists() or copy.read_bytes() != data:
            copy.write_bytes(data)


def without_slots(text: str) -> str:
    """A dataclass as mypyc takes it. It has slots in any case; `slots=True` would make a second class of it."""
    found = _SLOTS.sub(r"\1\2", text)
    if "slots=True" in found:
        raise ValueError("slots=True where it was not looked for")
    return found


def compile_tree(root: Path, target: Path, level: str = "3") -> list[Path]:
    """Compile a copy of `root` in `target`; the extension modules that are there then."""
    target.mkdir(parents=True, exist_ok=True)
    mirror(root, target)
    for path in target.rglob("*.so"):
        path.unlink()
    before = os.getcwd()
    os.chdir(target)
    try:
        _compile(modules(root), level)
    finally:
        os.chdir(before)
    return sorted(target.glob("*.so")) + sorted((target / "edge").rglob("*.so"))


def _compile(paths: list[str], level: str) -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class OnAllCores(build_ext):
        """One library has all the modules, and `parallel` is for many libraries: here its files are, too."""

        def build_extensions(self) -> None:
            compile_files = self.compiler.compile

            def at_once(sources: list[str], **options: Any) -> list[str]:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    made = pool.map(lambda source: compile_files([source], **options), sources)
                    return [each for objects in made for each in objects]

            self.compiler.compile = at_once
            super().build_extensions()

    extensions = mypycify(
        ["--config-file", str(ROOT / "pyproject.toml"), *paths],
        group_name=GROUP,
        opt_level=level,
        multi_file=True,
        debug_level="0",
        target_dir="c",
    )
    build = OnAllCores(Distribution({"name": GROUP, "ext_modules": extensions}))
    build.inplace, build.parallel = True, os.cpu_count()
    build.ensure_finalized()
    build.run()


class CompiledHook(BuildHookInterface[Any]):
    """Puts the extension modules into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is written."""
        if version == "editable":
            return
        target = Path(self.root, "build", "compiled")
        made = compile_tree(Path(self.root), target)
        build_data["force_include"].update({str(path): path.relative_to(target).as_posix() for path in made})
        build_data.update(pure_python=False, infer_tag=True)


if __name__ == "__main__":
    for made in compile_tree(ROOT, Path(sys.argv[1]).resolve(), *sys.argv[2:]):
        print(made)
