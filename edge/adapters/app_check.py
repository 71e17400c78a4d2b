"""Whether applications can be loaded, tried in a process of its own: an import runs their code, and none of it stays.

    python -m edge.adapters.app_check '["folder", …]' '["app module:attribute", "hook …"]'    prints {"app …": why not}

One rule: whatever an import does (hang, exit, print), the answer is a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

IMPORT_S = 30.0
APP, HOOK = "app", "hook"


def folders(python_path: Iterable[str], filename: str) -> list[str]:
    """Where the applications of this file are looked for: its own folder, then `python_path`."""
    base = Path(filename).resolve().parent
    return [str(base), *(str(base / each) for each in python_path)]


def unusable(named: list[str], looked_in: list[str]) -> dict[str, str]:
    """What cannot be loaded, and why, in a line each; each is named with its kind before it."""
    command = [sys.executable, "-m", __name__, orjson.dumps(looked_in).decode(), orjson.dumps(named).decode()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=IMPORT_S, stdin=subprocess.DEVNULL, check=False)
        found = orjson.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return dict.fromkeys(named, f"did not load within {IMPORT_S:g} s")
    except (orjson.JSONDecodeError, IndexError):
        return dict.fromkeys(named, "the process that tried to load it ended without an answer")
    return {str(name): str(why) for name, why in found.items()}


def main() -> None:
    """The child's side. What the applications print goes to standard error, so that the answer stands alone."""
    from edge.adapters.app_server import AppUnusable, load
    from edge.adapters.hook_loading import load_hook

    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    found = {}
    for each in orjson.loads(sys.argv[2]):
        kind, _, name = each.partition(" ")
        try:
            (load if kind == APP else load_hook)(name, orjson.loads(sys.argv[1]))
        except AppUnusable as error:
            found[each] = error.detail.removeprefix(f"{name}: ")
    answer.write(orjson.dumps(found) + b"\n")
    answer.flush()
    os._exit(0)  # whatever threads an import has started


if __name__ == "__main__":
    main()
