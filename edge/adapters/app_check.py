"""Whether applications can be loaded, tried in a process of its own: an import runs their code, and none of it stays.

    python -m edge.adapters.app_check '["folder", …]' '["module:attribute", …]'    prints {"module:attribute": why not}

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


def folders(python_path: Iterable[str], filename: str) -> list[str]:
    """Where the applications of this file are looked for: its own folder, then `python_path`."""
    base = Path(filename).resolve().parent
    return [str(base), *(str(base / each) for each in python_path)]


def unusable(names: list[str], looked_in: list[str]) -> dict[str, str]:
    """What cannot be loaded, and why, in a line each."""
    command = [sys.executable, "-m", __name__, orjson.dumps(looked_in).decode(), orjson.dumps(names).decode()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=IMPORT_S, stdin=subprocess.DEVNULL, check=False)
        found = orjson.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return dict.fromkeys(names, f"did not load within {IMPORT_S:g} s")
    except (orjson.JSONDecodeError, IndexError):
        return dict.fromkeys(names, "the process that tried to load it ended without an answer")
    return {str(name): str(why) for name, why in found.items()}


def main() -> None:
    """The child's side. What the applications print goes to standard error, so that the answer stands alone."""
    from edge.adapters.app_server import AppUnusable, load

    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    found = {}
    for name in orjson.loads(sys.argv[2]):
        try:
            load(name, orjson.loads(sys.argv[1]))
        except AppUnusable as error:
            found[name] = error.detail.removeprefix(f"{name}: ")
    answer.write(orjson.dumps(found) + b"\n")
    answer.flush()
    os._exit(0)  # whatever threads an import has started


if __name__ == "__main__":
    main()
