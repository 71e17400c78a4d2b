"""The command `edge` begins: a worker's process is started before anything else is read, for it reads for as long.

    edge run ─┬─ a worker's process: its libraries ────────────────┬─► its first frame ─► ready
              └─ this one: the command, the configuration, the supervisor's libraries ─┘

One rule: what is started here is taken by `run`, or ended with this process. The collector rests while libraries are
read: they leave no garbage.
"""

from __future__ import annotations

import gc
import sys

from edge.control.early import begin_early, end_early


def main() -> None:
    """The command `edge`: the entry point of the package."""
    gc.disable()
    begun = begin_early() if sys.argv[1:2] == ["run"] and "--help" not in sys.argv and "-h" not in sys.argv else []
    try:
        from edge.cli.main import main as command

        command()
    finally:
        end_early(begun)


if __name__ == "__main__":
    main()
