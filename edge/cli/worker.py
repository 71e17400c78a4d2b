"""The worker's process begins: its libraries are read, then `worker_process` serves.

One rule: the collector rests meanwhile. Libraries leave no garbage, and it would look through all that they make again
and again; `worker.collector` has the say from the moment at which the worker is ready.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """`python -m edge.cli.worker FD CHANNEL`."""
    gc.disable()
    import uvloop

    from edge.adapters.background_writer import quiet_stderr
    from edge.adapters.tls import quiet_names
    from edge.cli.worker_process import run_worker

    gc.enable()
    with quiet_stderr(), quiet_names():
        code = uvloop.run(run_worker(int(sys.argv[1]), int(sys.argv[2])))
    sys.exit(code)


if __name__ == "__main__":
    main()
