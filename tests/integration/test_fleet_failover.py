"""Gateways whose server is found by Sentinel, is a cluster, or is spoken to over TLS: real servers, really ended.

The property that matters: what was purged and acknowledged is never served again, whatever the new primary has lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from kit.fleet import HOST, Machine, Machines, Settings
from kit.ports import LOOPBACK, free_port
from kit.redis import RedisProcess
from kit.redis_many import ClusterGroup, SentinelGroup
from kit.waiting import until_blocking

from edge.adapters.shared_tier import name_of

ALL = {"applied": 2, "of": 2, "late": [], "sent": True, "sure": True}


def in_step(world: Machines, run_before: str = "") -> bool:
    """All of them, with another process of the server than before."""
    return all(world.in_step(each) and each.fleet["run"] != run_before for each in world.machines)


def purged(machine: Machine, target: str) -> bool:
    """Purge on both machines; whether both have said so. (`sure` it is only some time after a failover.) A machine that
    stands still for a moment is enough for sentinels to begin a failover of their own: then it is asked for again."""
    found = machine.purge(url=f"http://{HOST}{target}")["machines"]
    return bool(found["sent"]) and (found["applied"], found["of"], found["late"]) == (2, 2, [])


def stored_name(target: str) -> str:
    return f"edge:{name_of(f'http://{HOST}{target}'.encode(), b'')}"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[SentinelGroup, Machines]]:
    with ExitStack() as ends:
        group = SentinelGroup(tmp_path)
        ends.callback(group.kill)
        world = Machines(tmp_path, [group.url] * 2, Settings(max_blind_s=12.0, ack_timeout_s=50.0))
        ends.callback(world.close)
        yield group, world


def test_a_failover_that_loses_nothing_keeps_what_is_stored(guarded: tuple[SentinelGroup, Machines]) -> None:
    group, world = guarded
    first, second = world.machines
    world.origin.now = "one"
    kept = ["/kept", *(f"/kept-{number}" for number in range(20))]
    first.get("/purged")
    until_blocking(lambda: purged(first, "/purged"))
    for target in kept:
        name = stored_name(target)
        first.get_shared(target, lambda name=name: all(each.say("EXISTS", name) == b":1\r\n" for each in group.servers))
    history, run = first.fleet["history"], first.fleet["run"]
    group.fail_over()
    until_blocking(lambda: in_step(world, run))
    assert first.fleet["history"] == history, "all that was acknowledged is there"
    world.origin.now = "two"

    def has_it_too() -> bool:
        asked = world.origin.asked
        return second.get(kept.pop()) == b"one" and world.origin.asked == asked

    until_blocking(has_it_too, look_s=0.5)  # of the new primary: its workers may take a moment to ask it again
    assert world.all_get("/purged") == {b"two"}
    until_blocking(lambda: purged(second, "/kept"))
    assert world.all_get("/kept") == {b"two"}


def test_a_purge_during_a_failover_waits_for_the_new_primary(guarded: tuple[SentinelGroup, Machines]) -> None:
    group, world = guarded
    first, second = world.machines
    world.origin.now = "old"
    world.all_get("/now")
    world.origin.now = "new"
    group.primary.kill()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(each.purge, url=f"http://{HOST}/now") for each in (first, second)]
        assert first.get("/now") in (b"old", b"new"), "it serves meanwhile"
        assert [each.result()["machines"]["applied"] for each in found] == [2, 2]
    assert world.all_get("/now") == {b"new"}


def test_a_new_primary_that_lost_acknowledged_purges_is_found_out(guarded: tuple[SentinelGroup, Machines]) -> None:
    group, world = guarded
    first, second = world.machines
    world.origin.now = "old"
    world.all_get("/lost")
    world.all_get("/other")
    history, run = first.fleet["history"], first.fleet["run"]
    group.keep_from_replicas()
    world.origin.now = "new"
    until_blocking(lambda: purged(second, "/lost"))
    group.fail_over()
    until_blocking(lambda: in_step(world, run))
    assert first.fleet["history"] != history, "the stream is another one"
    assert world.all_get("/lost") == {b"new"} and world.all_get("/other") == {b"new"}
    until_blocking(lambda: purged(first, "/lost"))


def test_without_most_of_the_sentinels_nobody_is_in_step(guarded: tuple[SentinelGroup, Machines]) -> None:
    """A primary that only one of three sentinels names may have been left by the others."""
    group, world = guarded
    for each in group.sentinels[:2]:
        each.kill()
    until_blocking(lambda: not any(each.fleet["in_step"] for each in world.machines))
    assert "sentinels" in world.machines[0].fleet["trouble"]
    until_blocking(lambda: all(each.fleet["blind"] for each in world.machines))
    world.origin.now = "served on"
    assert world.all_get("/alone") == {b"served on"}


LOGINS = {
    "a password of the environment": 'sentinel_password = "${OF_SENTINELS}"',
    "a user, from a file": 'sentinel_user = "edge"\nsentinel_password = { file = "FILE" }',
}


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    group = SentinelGroup(tmp_path_factory.mktemp("asking"), "required")
    yield group
    group.kill()


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
def test_sentinels_that_ask_who_we_are(
    asking: SentinelGroup, login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_SENTINELS", "required")
    (tmp_path / "word").write_text("its-own\n")
    world = Machines(tmp_path, [], Settings(login.replace("FILE", f"{tmp_path}/word")))
    try:
        machine = world.add(asking.url)
        until_blocking(lambda: world.in_step(machine))
        machine.get_shared("/kept", lambda: asking.primary.say("EXISTS", stored_name("/kept")) == b":1\r\n")
    finally:
        world.close()


def test_sentinels_that_refuse_us_are_named(asking: SentinelGroup, tmp_path: Path) -> None:
    world = Machines(tmp_path, [], Settings('sentinel_password = "guessed"'))
    try:
        machine = world.add(asking.url)
        until_blocking(lambda: machine.fleet["trouble"].endswith("3 refuse the user or password"))
        assert "guessed" not in str(machine.call("GET", "/v1/config")) + machine.gateway.log()
    finally:
        world.close()


def test_a_cluster_of_three_and_the_failover_of_the_streams_shard(tmp_path: Path) -> None:
    group = ClusterGroup(tmp_path)
    world = Machines(tmp_path, [group.url] * 2)
    try:
        owner = group.owner("{edge}:head")
        group.add_replica(owner)
        world.wait_sure()
        first, second = world.machines
        world.origin.now = "one"
        targets = [f"/spread-{number}" for number in range(24)]
        names = [stored_name(target) for target in targets]
        for target, name in zip(targets, names, strict=True):
            first.get_shared(target, lambda name=name: group.owner(name).say("EXISTS", name) == b":1\r\n")
        assert len({group.owner(name).port for name in names}) == 3, "values are on all of them"
        asked = world.origin.asked
        assert {second.get(target) for target in targets} == {b"one"} and world.origin.asked == asked
        world.origin.now = "two"
        assert first.purge(url=f"http://{HOST}{targets[0]}")["machines"] == ALL
        assert world.all_get(targets[0]) == {b"two"}
        run = first.fleet["run"]
        owner.kill()
        until_blocking(lambda: in_step(world, run))
        world.wait_sure()
        world.origin.now = "three"
        assert second.purge(url=f"http://{HOST}{targets[1]}")["machines"] == ALL
        assert world.all_get(targets[1]) == {b"three"}
    finally:
        world.close()
        group.kill()


def test_tls_with_a_user_and_an_authority_of_our_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert(LOOPBACK)
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    tls = free_port()
    user = ("--user", "edge", "on", ">p@ss:/word", "~*", "&*", "+@all")
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    options = (*files, "--tls-port", str(tls), "--tls-auth-clients", "no", *user)
    server = RedisProcess.start(tmp_path, *options)
    secret = quote("p@ss:/word", safe="")
    url = f"rediss://edge:{secret}@{LOOPBACK}:{tls}/0"
    world = Machines(tmp_path, [url] * 2, Settings(f'ca_file = "{tmp_path}/ca.pem"'))
    try:
        world.wait_sure()
        world.origin.now = "sealed"
        first, second = world.machines
        first.get_shared("/tls", lambda: server.say("EXISTS", stored_name("/tls")) == b":1\r\n")
        asked = world.origin.asked
        assert second.get("/tls") == b"sealed" and world.origin.asked == asked
        assert first.purge(all=True)["machines"] == ALL
    finally:
        world.close()
        server.kill()


def test_a_server_whose_certificate_nobody_vouches_for_is_not_used(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert(LOOPBACK)
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    tls = free_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "server.pem")
    server = RedisProcess.start(tmp_path, *files, "--tls-port", str(tls), "--tls-auth-clients", "no")
    world = Machines(tmp_path, [])
    machine = world.add(f"rediss://{LOOPBACK}:{tls}/0")
    try:
        until_blocking(lambda: "certificate" in machine.fleet["trouble"])
        assert not machine.fleet["in_step"]
        world.origin.now = "served on"
        assert machine.get("/") == b"served on"
    finally:
        world.close()
        server.kill()
