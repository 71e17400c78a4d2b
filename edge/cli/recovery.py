"""Opening what recovery works with, for commands and sidecar: the repository that is meant, its key, pace, state.

One rule: this is the one place that joins the recovery side with its adapters and with the gateway's state.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from edge.adapters.disk_awaited import AwaitedBodies, awaits
from edge.adapters.disk_export import DiskWarm
from edge.adapters.disk_room import Limits
from edge.adapters.key_file import key_of
from edge.adapters.repository_directory import DirectoryRepository
from edge.adapters.repository_retry import RetryingRepository
from edge.adapters.repository_s3 import S3Repository
from edge.cli.state import LocalState
from edge.config.loader import Config
from edge.config.snapshots import Keep, Snapshots
from edge.ports import Repository
from edge.recovery.retention import KeepRules
from edge.sidecar.pace import Pace, PacedRepository
from edge.sidecar.take import LONGEST_CHAIN, Progress, Work, silent
from edge.sidecar.vault import Vault


@dataclass(frozen=True, slots=True)
class Where:
    """Which repository is meant."""

    repository: str
    endpoint: str | None = None
    region: str | None = None
    key_file: str | None = None

    @classmethod
    def of(cls, values: Snapshots) -> Where:
        """The repository that a configuration names."""
        return cls(values.repository, values.endpoint, values.region, values.encryption_key_file)


def repository_of(where: Where) -> Repository:
    """The adapter of a repository, with retries around it."""
    kind, _, rest = where.repository.partition(":")
    inner: Repository
    if kind == "file":
        inner = DirectoryRepository(Path(rest.removeprefix("//")))
    else:
        inner = S3Repository(where.repository, where.endpoint, where.region)
    return RetryingRepository(inner, time.sleep, random.random)


def open_work(
    where: Where,
    make: bool,
    pace: Pace | None = None,
    progress: Progress = silent,
    longest_chain: int = LONGEST_CHAIN,
) -> Work:
    """The repository, open. Raises RecoveryError."""
    pace = pace or Pace()
    repository = PacedRepository(repository_of(where), pace)
    vault = Vault.open(repository, key_of(where.key_file), os.urandom, make)
    return Work(vault, pace, time.time, progress, longest_chain)


def pace_of(values: Snapshots) -> Pace:
    """How fast the sidecar may go."""
    return Pace(values.core, float(values.bandwidth))


def rules_of(keep: Keep) -> KeepRules:
    """`snapshots.keep` as retention reads it."""
    return KeepRules(keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly, keep.within)


def warm_of(config: Config | None) -> DiskWarm | None:
    """The disk tier that a configuration names."""
    if config is None or config.cache.disk is None:
        return None
    return DiskWarm(Path(config.cache.disk.path), config.cache.disk.size)


def awaiting_of(config: Config) -> AwaitedBodies | None:
    """The disk tier that a configuration names, while bodies are awaited in it."""
    disk = config.cache.disk
    if disk is None or not awaits(Path(disk.path)):
        return None
    return AwaitedBodies(Path(disk.path), Limits(disk.size, disk.min_free))


def cache_of(config: Config | None) -> Path | None:
    """The disk tier's directory; None without one."""
    return None if config is None or config.cache.disk is None else Path(config.cache.disk.path)


def state_of(config: Config, filename: str, encrypted: bool) -> LocalState:
    """The state that a configuration names."""
    return LocalState(Path(config.state.path), encrypted, config, filename)
