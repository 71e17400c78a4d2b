"""Budgets and this machine: memory, disk and open files that a configuration wants, and what there is of them.

One rule: as in `preflight`, nothing is made or waited for. What cannot be had at all is an error, what leaves too
little a warning.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.control.early import worker_count

Finding = tuple[KeyPath, str, bool]  # key, what is wrong, whether nothing works
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
SPARE_FILES = 64  # of a process: log, index, segments, links
SPARE_ROOM = 64 * 2**20  # for journal and log


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory, open files and disk space of this machine."""

    memory: int
    open_files: int

    @classmethod
    def here(cls) -> Machine:
        """This machine, or the part of it that this process may use."""
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return cls(min([whole, *memory_limits()]), 2**31 if hard == resource.RLIM_INFINITY else hard)


def memory_limits(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> Iterator[int]:
    """What control groups allow: the process's own (a unit's MemoryMax) and those above it, a container's."""
    try:
        name = own.read_text(encoding="utf-8").strip().rpartition("0::/")[2]
    except (OSError, UnicodeDecodeError):
        name = ""
    folders = [cgroups / name, *(cgroups / name).parents]
    files = [each / "memory.max" for each in folders if each == cgroups or cgroups in each.parents]
    for path in (*files, cgroups / "memory" / "memory.limit_in_bytes"):
        try:
            yield int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            pass  # no such group, or "max"


def budget_findings(config: Config, machine: Machine) -> Iterator[Finding]:
    """Warnings about budgets that exceed what the machine has."""
    yield from _memory(config, machine)
    yield from _disk(config)
    yield from _open_files(config, machine)


def _memory(config: Config, machine: Machine) -> Iterator[Finding]:
    workers = worker_count(config)
    memory, there = config.cache.memory, machine.memory
    each = f"{shown_size(memory)}{f' for each of {workers} workers' if workers > 1 else ''}"
    if memory * workers > there:
        yield ("cache", "memory"), f"{each} is more than this machine has ({shown_size(there)})", True
    elif memory * workers > 0.8 * there:
        yield ("cache", "memory"), f"{each} leaves little of this machine's {shown_size(there)}", False
    disk = config.cache.disk
    room, named = (memory, "cache.memory") if disk is None else (disk.size, "cache.disk.size")
    if room and config.cache.max_object > room:
        yield ("cache", "max_object"), f"is more than {named}: such a response is never stored", False


def _disk(config: Config) -> Iterator[Finding]:
    disk, state = config.cache.disk, nearest_there(Path(config.state.path))
    if state.is_dir() and (free := shutil.disk_usage(state).free) < SPARE_ROOM:
        yield ("state", "path"), f"{state} has {shown_size(free)} left: the journal may not find room", False
    if disk is None or not (there := nearest_there(Path(disk.path))).is_dir():
        return
    usage, key = shutil.disk_usage(there), ("cache", "disk", "size")
    if disk.size > usage.total:
        yield key, f"is more than the whole file system ({shown_size(usage.total)})", True
    elif disk.size + disk.min_free > usage.total:
        said = f"leaves less than min_free ({shown_size(disk.min_free)}) of a file system of {shown_size(usage.total)}"
        yield key, said, False
    elif not (Path(disk.path) / "store").is_dir() and disk.size + disk.min_free > usage.free:  # nothing of it is used
        yield key, f"is with min_free more than is free ({shown_size(usage.free)})", False


def _open_files(config: Config, machine: Machine) -> Iterator[Finding]:
    """A request holds a connection to its client, and may hold one to a backend. Of a limit that nobody chose it is
    told only when the clients alone are too many."""
    clients = config.limits.connections
    in_flight = [each.max_in_flight or clients for pool in config.pools.values() for each in pool.backends]
    wanted = clients + min(clients, sum(in_flight)) + SPARE_FILES
    chosen = "connections" in config.limits.model_fields_set
    if (wanted if chosen else clients) > machine.open_files:
        said = (
            f"{clients} in each worker, and those to backends, may need {wanted} open files; the hard limit here is "
            f"{machine.open_files} (ulimit -Hn, LimitNOFILE)"
        )
        yield ("limits", "connections"), said, False


def nearest_there(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def shown_size(number: int) -> str:
    """A number of bytes for people."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 2**20:.1f} MiB"
