"""Whether applications can be loaded, tried in a process of its own: an import runs their code, and none of it stays.

    python -m edge.adapters.app_check '["folder", …]' '["app module:attribute", "hook …"]'
        prints {"unusable": {"app …": why not}, "code": which code it is}

One rule: whatever an import does (hang, exit, print), the answer is a line; and whatever becomes of who asked, the
process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import orjson

IMPORT_S = 30.0
LONGER_S = 5  # who asks ends the process in time; it ends itself when nobody did
APP, HOOK = "app", "hook"


def folders(python_path: Iterable[str], filename: str) -> list[str]:
    """Where the applications of this file are looked for: its own folder, then `python_path`."""
    return [str(Path(filename).resolve().parent), *(str(Path(each).resolve()) for each in python_path)]


_running: set[subprocess.Popen[bytes]] = set()


def end_running() -> None:
    """End what is being tried: nobody waits for the answers any more."""
    for child in list(_running):
        child.kill()


class Tried(NamedTuple):
    """What cannot be loaded, and why, in a line each, named with its kind before it; and which code it is."""

    unusable: dict[str, str]
    code: str = ""


def tried(named: list[str], looked_in: list[str]) -> Tried:
    """Load them in a process that ends with it, and with this one."""
    theirs, held = os.pipe()
    try:
        return _tried(named, looked_in, theirs)
    finally:
        os.close(theirs)
        os.close(held)


def _tried(named: list[str], looked_in: list[str], stdin: int) -> Tried:
    command = [sys.executable, "-m", __name__, orjson.dumps(looked_in).decode(), orjson.dumps(named).decode()]
    child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    _running.add(child)
    try:
        said, _ = child.communicate(timeout=IMPORT_S)
        found = orjson.loads(said.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Tried(dict.fromkeys(named, f"did not load within {IMPORT_S:g} s"))
    except (orjson.JSONDecodeError, IndexError):
        return Tried(dict.fromkeys(named, "the process that tried to load it ended without an answer"))
    finally:
        _running.discard(child)
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    return Tried({str(name): str(why) for name, why in found["unusable"].items()}, str(found["code"]))


def code_of(named: Iterable[str], looked_in: Iterable[str]) -> str:
    """Which code has just been loaded: the names, and the files below these folders that modules came from.

    What is installed and this program itself are not meant: who changes those starts the gateway anew.
    """
    below = tuple(f"{folder}/" for folder in looked_in)
    own, files = str(Path(__file__).parents[1]) + "/", set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.startswith(below) and not file.startswith(own) and "site-packages" not in file:
            files.add(file)
    told = hashlib.sha256("\n".join(sorted(named)).encode())
    for file in sorted(files):
        try:
            stat = os.stat(file)
        except OSError:
            continue  # it was removed after it was read
        told.update(f"\n{file} {stat.st_mtime_ns} {stat.st_size}".encode())
    return told.hexdigest()


def end_with(pipe: int) -> None:
    """End when the other end of a pipe is closed, or after the longest time; whatever code runs then: the kernel ends
    it, by signals that nobody handles."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(IMPORT_S) + LONGER_S)
    kept = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 3)
    fcntl.fcntl(kept, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(kept, fcntl.F_SETFL, fcntl.fcntl(kept, fcntl.F_GETFL) | os.O_ASYNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, pipe)  # what an import reads is empty
    os.close(nothing)
    if select.select([kept], [], [], 0)[0]:
        sys.exit(1)  # closed before the kernel was asked to tell


def main() -> None:
    """The child's side. What the applications print goes to standard error, so that the answer stands alone."""
    end_with(0)
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
    code = code_of(orjson.loads(sys.argv[2]), orjson.loads(sys.argv[1]))
    answer.write(orjson.dumps({"unusable": found, "code": code}) + b"\n")
    answer.flush()
    os._exit(0)  # whatever threads an import has started


if __name__ == "__main__":
    main()
