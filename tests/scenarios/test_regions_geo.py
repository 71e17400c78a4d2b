"""Places: ten well-known public addresses through `edge explain`, and a start without a usable database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.client import RawClient
from kit.processes import ROOT
from kit.regions import Load, Regions, spread
from kit.waiting import until

DATABASE = ROOT / "geoip" / "edge-country.mmdb"
GEO = 'balance = "geo"\n'
FENCED = """
[[routes]]
name = "fenced"
host = "fenced.example"
pool = "web"
geo = { require = ["us"] }
"""
# Address, what it is known for, country, continent. Those of anycast networks are where they are registered.
KNOWN = (
    ("8.8.8.8", "Google DNS", "US", "NA"),
    ("192.5.6.30", "a.gtld-servers.net", "US", "NA"),
    ("18.9.22.69", "MIT", "US", "NA"),
    ("193.0.6.139", "RIPE NCC", "NL", "EU"),
    ("130.149.7.201", "TU Berlin", "DE", "EU"),
    ("131.111.150.25", "Cambridge", "GB", "EU"),
    ("129.132.19.216", "ETH Zürich", "CH", "EU"),
    ("200.160.2.3", "NIC.br", "BR", "SA"),
    ("196.216.2.6", "AFRINIC", "MU", "AF"),
    ("133.11.0.1", "University of Tokyo", "JP", "AS"),
)


def head(database: Path) -> str:
    return f'[geoip]\ndatabase = "{database}"\n'


async def test_ten_known_addresses_have_their_place_and_their_order(regions: Regions) -> None:
    await regions.start(GEO, head=head(DATABASE))
    for address, name, country, continent in KNOWN:
        told = await regions.cli("explain", "http://a.example/work", "--client", address, "--json")
        assert told.returncode == 0, told.stderr
        found = json.loads(told.stdout)
        place = found["place"]
        assert (place["country"], place["continent"]) == (country, continent), name
        first = {"NA": "us", "SA": "us", "EU": "eu", "AF": "eu"}.get(continent)
        order = [row["region"] for row in found["regions"]]
        assert order == place["order"]
        assert sorted(order) == ["eu", "us"]
        if first is not None:
            assert (order[0], place["found_by"]) == (first, "continent"), name


async def test_a_client_without_a_place_gets_the_default_order_with_the_reason(regions: Regions) -> None:
    await regions.start(GEO, head=head(DATABASE))
    found = (await regions.api("GET", "/v1/explain?url=http://a.example/&client=192.168.1.1")).body
    assert found["place"]["unknown"] == "private"
    assert found["place"]["order"] == ["eu", "us"]
    async with Load(regions.gateway.http_port) as load:
        assert spread(await load.more(20)) == {"eu": 100}, "loopback is private: the default order serves"


@pytest.mark.parametrize("kind", ["missing", "cut", "other"])
async def test_a_database_that_cannot_be_used_is_one_warning_and_the_fence_holds(
    regions: Regions, tmp_path: Path, kind: str
) -> None:
    database = tmp_path / "places.mmdb"
    if kind == "cut":
        database.write_bytes(DATABASE.read_bytes()[:100_000])
    elif kind == "other":
        database.write_bytes(b"not a database at all\n" * 100)
    await regions.start(GEO, more=FENCED, head=head(database))
    async with Load(regions.gateway.http_port) as load:
        assert spread(await load.more(20)) == {"eu": 100}
    warnings = [line for line in regions.gateway.log().splitlines() if "clients' places are unknown" in line]
    assert len(warnings) == 1, regions.gateway.log()
    assert str(database) in warnings[0]
    found = (await regions.api("GET", "/v1/explain?url=http://a.example/&client=8.8.8.8")).body
    assert found["place"]["unknown"] == "no-database"
    await regions.lose("us")
    await regions.until(lambda pool: pool["regions"]["us"]["health"] == "unhealthy")
    client = await RawClient.connect(regions.gateway.http_port)
    try:

        async def refused() -> bool:
            status = (await client.get("/work", "fenced.example")).status
            assert status in (502, 503)
            return status == 503

        await until(refused)  # 502 until the worker has heard of it too
    finally:
        await client.close()
