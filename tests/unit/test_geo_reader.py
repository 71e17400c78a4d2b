"""The GeoIP reader against the database that is shipped, and against files that are no good."""

from __future__ import annotations

import os
import shutil
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import mmdb_writer
import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adapters.geo import GeoReader
from edge.balance.geo import Unknown

DATABASE = Path(__file__).parents[2] / "geoip" / "edge-country.mmdb"

# Root name servers, public resolvers, registries: who runs them and where is public knowledge.
WELL_KNOWN = [
    ("8.8.8.8", "US", "NA"),
    ("9.9.9.9", "US", "NA"),
    ("193.0.6.139", "NL", "EU"),
    ("192.36.148.17", "SE", "EU"),
    ("212.27.40.240", "FR", "EU"),
    ("202.12.27.33", "JP", "AS"),
    ("168.126.63.1", "KR", "AS"),
    ("139.130.4.5", "AU", "OC"),
    ("200.160.2.3", "BR", "SA"),
    ("196.25.1.1", "ZA", "AF"),
    ("2001:4860:4860::8888", "US", "NA"),
    ("2001:67c:2e8::1", "NL", "EU"),
]


@pytest.fixture(scope="module")
def reader() -> GeoReader:
    return GeoReader(DATABASE)


class Warnings(list[str]):
    """Collects what the reader warns of."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATABASE, tmp_path / "country.mmdb"))


@pytest.mark.parametrize(("address", "country", "continent"), WELL_KNOWN)
def test_well_known_addresses(reader: GeoReader, address: str, country: str, continent: str) -> None:
    place = reader.place(address)
    assert (place.country, place.continent, place.unknown) == (country, continent, None)
    assert place.lat is not None and -90 <= place.lat <= 90
    assert place.lon is not None and -180 <= place.lon <= 180


def test_middles_lie_in_their_countries(reader: GeoReader) -> None:
    netherlands, australia = reader.place("193.0.6.139"), reader.place("139.130.4.5")
    assert netherlands[3:5] == pytest.approx((52.2, 5.6), abs=0.5)
    assert australia[3:5] == pytest.approx((-25.5, 134.4), abs=1.5)
    russia = reader.place("95.173.136.70")  # its outline crosses the date line
    assert russia.country == "RU" and russia.lon is not None and 60 < russia.lon < 140


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "127.0.0.1", "::1", "fe80::1%eth0", "fd00::1"])
def test_private_addresses_have_that_reason(reader: GeoReader, address: str) -> None:
    assert reader.place(address).unknown is Unknown.PRIVATE


def test_mapped_addresses_are_ipv4(reader: GeoReader) -> None:
    assert reader.place("::ffff:193.0.6.139") == reader.place("193.0.6.139")
    assert reader.place("::ffff:10.0.0.1").unknown is Unknown.PRIVATE


def test_what_no_network_announces_is_not_found(reader: GeoReader) -> None:
    assert reader.place("2e00::1").unknown is Unknown.NOT_FOUND


@pytest.mark.parametrize("text", ["", "localhost", "8.8.8.8:80", "1.2.3.4.5", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_no_address(reader: GeoReader, text: str) -> None:
    assert reader.place(text).unknown is Unknown.NO_ADDRESS


@given(number=st.integers(0, 2**128 - 1), version=st.sampled_from([4, 6]))
@settings(max_examples=150)
def test_every_address_has_a_place_or_a_reason(number: int, version: int) -> None:
    address = ip_address(number % 2**32) if version == 4 else ip_address(number)
    place = SHARED.place(str(address))
    assert (place.unknown is None) == bool(place.country and place.continent)
    if address.is_private:
        assert place.unknown is not None


SHARED = GeoReader(DATABASE)


def test_age_is_that_of_the_data(reader: GeoReader) -> None:
    assert reader.built is not None
    assert reader.age_s(reader.built + 86400.0) == 86400.0
    assert reader.age_s(reader.built - 5.0) == 0.0


def test_without_a_database_every_place_is_unknown(warnings: Warnings) -> None:
    reader = GeoReader(None, warnings)
    assert reader.place("8.8.8.8").unknown is Unknown.NO_DATABASE
    assert reader.age_s(1e9) is None and reader.built is None
    assert reader.describe("8.8.8.8").place.unknown is Unknown.NO_DATABASE
    assert warnings == []


def test_a_missing_file_warns_once_and_is_picked_up_when_it_comes(tmp_path: Path, warnings: Warnings) -> None:
    path = tmp_path / "later.mmdb"
    reader = GeoReader(path, warnings)
    assert not reader.refresh() and not reader.refresh()
    assert len(warnings) == 1 and str(path) in warnings[0] and reader.failures == 1
    assert reader.place("8.8.8.8").unknown is Unknown.NO_DATABASE
    shutil.copy(DATABASE, path)
    assert reader.refresh()
    assert reader.place("8.8.8.8").country == "US"
    assert reader.problem == ""


def test_an_unchanged_file_is_not_opened_again(copy: Path, warnings: Warnings) -> None:
    reader = GeoReader(copy, warnings)
    opened = reader._database
    assert opened is not None and not reader.refresh() and reader._database is opened


@pytest.mark.parametrize("cut", [0, 1, 4096, 1 << 20, -1, -64, -200])
def test_a_file_cut_in_place_keeps_the_old_one(copy: Path, warnings: Warnings, cut: int) -> None:
    reader = GeoReader(copy, warnings)
    os.truncate(copy, cut if cut >= 0 else copy.stat().st_size + cut)
    # The mapping must not be of the file: this look-up would kill the process.
    assert reader.place("193.0.6.139").country == "NL"
    assert not reader.refresh() and not reader.refresh()
    assert len(warnings) == 1 and "old one stays" in warnings[0]
    assert reader.place("200.160.2.3").country == "BR"
    assert reader.describe("200.160.2.3").country_name == "Brazil"
    shutil.copy(DATABASE, copy)
    assert reader.refresh() and reader.problem == ""


def test_a_file_that_vanishes_keeps_the_old_one(copy: Path, warnings: Warnings) -> None:
    reader = GeoReader(copy, warnings)
    copy.unlink()
    assert not reader.refresh() and not reader.refresh()
    assert len(warnings) == 1
    assert reader.place("8.8.8.8").country == "US"


def test_other_things_than_a_database(tmp_path: Path, warnings: Warnings) -> None:
    text, pipe = tmp_path / "text.mmdb", tmp_path / "pipe.mmdb"
    text.write_text("not a database\n" * 1000)
    os.mkfifo(pipe)
    for path in (text, pipe, tmp_path):
        assert GeoReader(path, warnings).place("8.8.8.8").unknown is Unknown.NO_DATABASE
    assert len(warnings) == 3


def test_damage_inside_never_raises(copy: Path, warnings: Warnings) -> None:
    content = bytearray(DATABASE.read_bytes())
    for at in range(1000, len(content) - 20000, 997):
        content[at] ^= 0xFF
    copy.write_bytes(content)
    reader = GeoReader(copy, warnings)
    for number in range(0, 2**32, 2**32 // 500):
        reader.place(str(ip_address(number)))
        reader.describe(str(ip_address(number)))


def test_describe_has_names_and_network(reader: GeoReader) -> None:
    told = reader.describe("::ffff:193.0.6.139")
    assert (told.address, told.country_name, told.continent_name) == ("193.0.6.139", "Netherlands", "Europe")
    assert told.network == "193.0.0.0/20"
    assert told.place == reader.place("193.0.6.139")
    assert reader.describe("10.0.0.1").place.unknown is Unknown.PRIVATE
    assert reader.describe("nonsense").country_name == ""


def built(path: Path, kind: str, record: dict[str, Any]) -> Path:
    """A database with one network, as another maker's."""
    writer = mmdb_writer.MMDBWriter(4, kind, languages=["en"], description="test")
    writer.insert_network(netaddr.IPSet(["203.0.113.0/24", "10.9.0.0/16"]), record)
    writer.to_db_file(str(path))
    return path


CITY = {
    "country": {"iso_code": "US", "names": {"en": "United States"}},
    "continent": {"code": "NA", "names": {"en": "North America"}},
    "subdivisions": [{"iso_code": "CA", "names": {"en": "California"}}],
    "city": {"names": {"en": "Oakland"}},
    "location": {"latitude": 37.8, "longitude": -122.3},
}


def test_a_city_database_has_subdivisions(tmp_path: Path, warnings: Warnings) -> None:
    reader = GeoReader(built(tmp_path / "city.mmdb", "GeoLite2-City", CITY), warnings)
    assert reader.place("203.0.113.9")[:5] == ("US", "US-CA", "NA", 37.8, -122.3)
    told = reader.describe("203.0.113.9")
    assert (told.subdivision_name, told.city_name, told.database) == ("California", "Oakland", "GeoLite2-City")
    assert reader.place("10.9.1.1").country == "US"  # an own database may place private networks
    assert reader.place("2001:db8::1").unknown is not None  # a v4 database asked for v6
    assert warnings == []


def test_a_country_database_needs_no_location(tmp_path: Path, warnings: Warnings) -> None:
    record = {key: CITY[key] for key in ("country", "continent")}
    reader = GeoReader(built(tmp_path / "country.mmdb", "DBIP-Country-Lite", record), warnings)
    assert reader.place("203.0.113.9")[:5] == ("US", "", "NA", None, None)
    assert reader.describe("203.0.113.9").country_name == "United States"


@pytest.mark.parametrize(
    ("kind", "record"),
    [("GeoLite2-ASN", {"autonomous_system_number": 64500}), ("Flat-Country", {"country_code": "US"})],
)
def test_a_database_of_another_kind_keeps_the_old_one(
    copy: Path, tmp_path: Path, warnings: Warnings, kind: str, record: dict[str, Any]
) -> None:
    reader = GeoReader(copy, warnings)
    os.replace(built(tmp_path / "other.mmdb", kind, record), copy)
    assert not reader.refresh() and not reader.refresh()
    assert len(warnings) == 1 and reader.failures == 1
    assert reader.place("8.8.8.8").country == "US"
