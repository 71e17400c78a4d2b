"""`/metrics` and the files in deploy/: both formats parse, labels are bounded, rules name only what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest_asyncio
import trustme
from kit.client import RawClient
from kit.control import Whole
from kit.origin import ScriptedOrigin
from kit.waiting import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from edge.adapters.disk_keeper import TierKeeper
from edge.adapters.disk_room import Limits
from edge.cache.purge import PurgeLog
from edge.control.admin import store_help
from edge.control.admin.exposition import WORDS, content_type, exposition
from edge.control.admin.metric_text import END, OPEN_TYPE, counter, gauge, histogram
from edge.control.admin.views import Views
from edge.control.admin.vitals import Vitals
from edge.metrics import LATENCY_BOUNDS_S

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DOCS = DEPLOY.parent / "docs"
ROW = re.compile(r"^\| `(edge_[a-z0-9_]+)` \| (?:gauge|counter|histogram) \| ([a-z, ]*) \|", re.MULTILINE)
TIERS = """
[cache.disk]
path = "@DIR@/cache"
size = "64MiB"
min_free = "1MiB"
[cache.shared]
url = "redis://127.0.0.1:1/0"
"""
TOML = """
[listen]
http = ["127.0.0.1:0"]
workers = 2
[[listen.https]]
address = "127.0.0.2:0"
certificates = [{ cert = "@DIR@/site.pem", key = "@DIR@/site.key" }]
[log]
access = "off"
[regions.eu]
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:@ORIGIN@"
region = "eu"
[[routes]]
name = "all"
pool = "web"
[routes.cache]
"""
OF_TIERS = ("edge_disk_", "edge_store_disk_", "edge_store_shared_", "edge_store_prefetch_")
ELSEWHERE = ("edge_recovery_", "edge_acme_", *OF_TIERS)  # made with a prefix, where what they are of is configured
OF_RECOVERY = "edge_recovery_"  # only where [snapshots] is given; their names stand in control.recovery
OUTSIDE = {"up"}
NAME = re.compile(r"\b(edge_[a-z0-9_]+|up)\b(?=[{\[ )]|$)")


@pytest_asyncio.fixture
async def whole(origin: ScriptedOrigin, tmp_path: Path) -> AsyncIterator[Whole]:
    issued = trustme.CA().issue_cert("www.example.com")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "site.pem")
    issued.private_key_pem.write_to_path(tmp_path / "site.key")
    found = Whole(TOML.replace("@ORIGIN@", str(origin.port)).replace("@DIR@", str(tmp_path)))
    await found.start()
    yield found
    await found.supervisor.stop(1.0)


def text_of(whole: Whole, accept: str = "") -> str:
    """What a scrape gets."""
    vitals = Vitals(whole.supervisor)
    shown = Views(whole.supervisor)
    wanted = content_type(accept)
    return exposition(whole.supervisor.totals, lambda: [*shown.gauges(), *vitals.gauges()], wanted).decode()


async def counted(whole: Whole) -> None:
    """Until every worker has told its counts."""
    await until(lambda: len(whole.supervisor.totals.gauges) == 2)


def samples(text: str) -> Iterator[Any]:
    for family in families(text):
        yield from family.samples


async def test_both_formats_parse_and_say_the_same(whole: Whole) -> None:
    await counted(whole)
    old = {family.name for family in families(text_of(whole))}
    new = {family.name for family in open_families(text_of(whole, OPEN_TYPE))}
    assert {name.removesuffix("_total") for name in old} == new
    assert text_of(whole, OPEN_TYPE).endswith("# EOF\n")


async def test_processes_tiers_certificates_and_build_are_there(whole: Whole) -> None:
    await counted(whole)
    found = list(samples(text_of(whole)))
    by_name: dict[str, list[Any]] = {}
    for sample in found:
        by_name.setdefault(sample.name, []).append(sample)
    processes = {sample.labels["process"] for sample in by_name["edge_process_resident_memory_bytes"]}
    assert processes == {"supervisor", "worker-0", "worker-1"}
    assert all(sample.value > 1e6 for sample in by_name["edge_process_resident_memory_bytes"])
    assert len(by_name["edge_worker_loop_lag_seconds"]) == 2
    assert {sample.labels["tier"] for sample in by_name["edge_tier_bytes"]} == {"memory"}
    assert by_name["edge_certificate_days"][0].value > 1
    assert by_name["edge_build_info"][0].labels["version"]
    assert by_name["edge_pool_queued"][0].labels == {"pool": "web"}


async def test_nothing_that_clients_send_becomes_a_label(whole: Whole, origin: ScriptedOrigin) -> None:
    client = await RawClient.connect(whole.port)
    for number in range(30):
        await client.get(f"/{number}?x={number}", f"h{number}.example")
    await client.close()
    await until(lambda: sum(meter.requests for meter in whole.supervisor.totals.routes.values()) == 30)
    text = text_of(whole)
    assert "h1.example" not in text
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) < 400


def expressions() -> Iterator[tuple[str, str]]:
    """Each PromQL text of deploy/, and where it stands."""
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"grafana: {panel['title']}", target["expr"]
    for variable in json.loads((DEPLOY / "grafana.json").read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield f"grafana: variable {variable['name']}", variable["definition"].replace(",", " ")
    text = (DEPLOY / "alerts.yml").read_text()
    for match in re.finditer(r"- alert: (\w+)\n\s+expr: (?:>-\n((?:\s{10}.*\n)+)|(.*)\n)", text):
        yield f"alert {match[1]}", match[2] or match[3]
    assert text.count("- alert:") == len(re.findall(r"- alert: (\w+)\n\s+expr: ", text))


async def test_rules_and_dashboard_name_only_what_there_is(whole: Whole) -> None:
    await counted(whole)
    there = {line.split("{")[0].split(" ")[0] for line in text_of(whole).splitlines() if not line.startswith("#")}
    declared = {line.split()[2] for line in text_of(whole).splitlines() if line.startswith("# TYPE")}
    histograms = {f"{name}_{part}" for name in declared for part in ("bucket", "sum", "count")}
    known = there | declared | histograms | OUTSIDE
    labels = {sample.name: set(sample.labels) for sample in samples(text_of(whole))}
    seen = set()
    for place, expression in expressions():
        names = set(NAME.findall(expression))
        assert names, f"{place}: no metric in {expression}"
        wrong = {name for name in names - known if not name.startswith(OF_RECOVERY)}
        assert not wrong, f"{place}: {wrong}"
        seen |= names
        for name, inside in re.findall(r"(edge_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)(?:=~|!=|=)", inside)) - {"instance"}
            assert name not in labels or used - {"class"} <= labels[name], f"{place}: {name} has no {used}"
    assert len(seen) > 25


def test_recovery_names_are_those_that_recovery_says() -> None:
    text = (Path(__file__).resolve().parents[2] / "edge/control/recovery.py").read_text()
    for place, expression in expressions():
        for name in NAME.findall(expression):
            if name.startswith(OF_RECOVERY):
                assert f'"{name.removeprefix(OF_RECOVERY)}"' in text, f"{place}: {name}"


async def test_promtool_agrees(whole: Whole) -> None:
    await counted(whole)
    found = promtool("rules", str(DEPLOY / "alerts.yml"))
    assert found.returncode == 0, found.stdout + found.stderr
    found = promtool("metrics", given=text_of(whole))
    assert [line for line in found.stderr.splitlines() if not line.startswith(IN_DAYS)] == []


IN_DAYS = "edge_certificate_days "  # people count in days when a certificate ends; promtool would have seconds


def promtool(*what: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """`promtool check …`."""
    assert shutil.which("promtool"), "this test needs promtool (Debian's package prometheus)"
    return subprocess.run(["promtool", "check", *what], input=given, capture_output=True, text=True, check=False)


def bounds_of(text: str, name: str) -> list[float]:
    """The finite upper bounds of a histogram."""
    found = {float(each.labels["le"]) for each in samples(text) if each.name == f"{name}_bucket"}
    return sorted(found - {float("inf")})


async def test_buckets_are_those_of_the_configuration(origin: ScriptedOrigin, tmp_path: Path) -> None:
    shared = '[metrics]\nbuckets = ["3ms", "2s"]\ntotal_buckets = ["20ms", "1m"]\n'
    text = re.sub(r"(?s)\[\[listen.https\]\].*?(?=\[log\])", "", TOML).replace("@ORIGIN@", str(origin.port))
    for own, first, total in ((shared, [0.003, 2], [0.02, 60]), ("", [*LATENCY_BOUNDS_S], [*LATENCY_BOUNDS_S])):
        found = Whole(text.replace("[log]", f"{own}[log]"))
        await found.start()
        client = await RawClient.connect(found.port)
        assert (await client.get("/")).status == 200
        await client.close()
        await until(lambda found=found: "all" in found.supervisor.totals.routes)  # type: ignore[misc]
        metrics = found.supervisor.running.config.metrics
        shown = exposition(found.supervisor.totals, list, buckets=(metrics.buckets, metrics.total)).decode()
        for name, bounds in (
            ("edge_first_byte_seconds", first),
            ("edge_backend_latency_seconds", first),
            ("edge_latency_seconds", total),
        ):
            assert bounds_of(shown, name) == bounds
        await found.supervisor.stop(1.0)


def test_alerts_compare_with_bounds_that_there_are() -> None:
    thresholds = [
        float(match[1])
        for _, expression in expressions()
        if "histogram_quantile" in expression and (match := re.search(r"\) > ([0-9.]+)$", expression))
    ]
    assert thresholds and set(thresholds) <= set(LATENCY_BOUNDS_S)


def test_odd_names_and_numbers_survive_both_formats() -> None:
    odd = 'a"b\\c\nd{e}é'
    rows = [((("x", odd), ("y", "")), 3), ((("x", "z"), ("y", "1")), 0.25)]
    buckets = [((("x", odd),), [1, 0, 2], 7.5), ((), [0, 0, 0], 0)]
    for newer, read in ((False, families), (True, open_families)):
        text = counter("edge_a", "A\\B\nC", rows, newer) + gauge("edge_b", "b", [((), 1e300)])
        text += histogram("edge_c_seconds", "c", (0.001, 1), buckets) + (END if newer else "")
        found = {(each.name, *sorted(each.labels.items())): each.value for each in _samples(read(text))}
        assert found[("edge_a_total", ("x", odd), ("y", ""))] == 3
        assert found[("edge_a_total", ("x", "z"), ("y", "1"))] == 0.25
        assert found[("edge_b",)] == 1e300
        assert found[("edge_c_seconds_bucket", ("le", "+Inf"), ("x", odd))] == 3
        assert found[("edge_c_seconds_bucket", ("le", "1.0"), ("x", odd))] == 1
        assert found[("edge_c_seconds_sum", ("x", odd))] == 7.5


def _samples(found: Iterator[Any]) -> Iterator[Any]:
    for family in found:
        yield from family.samples


async def test_the_page_for_people_has_every_metric(whole: Whole) -> None:
    await counted(whole)
    declared = {line.split()[2] for line in text_of(whole).splitlines() if line.startswith("# TYPE")}
    told = set(re.findall(r"^\| `(edge_[a-z0-9_]+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert declared - told == set(), "not in docs/metrics.md"
    code = "".join(path.read_text() for path in (DOCS.parent / "edge" / "control").rglob("*.py"))
    assert [name for name in told - declared if not name.startswith(ELSEWHERE) and f'"{name}"' not in code] == []


def page_rows() -> dict[str, set[str]]:
    """The metrics of docs/metrics.md with their labels."""
    rows = ROW.findall((DOCS / "metrics.md").read_text(encoding="utf-8"))
    return {name: {label for label in labels.split(", ") if label.strip()} for name, labels in rows}


async def test_the_page_for_people_has_what_every_tier_counts(origin: ScriptedOrigin, tmp_path: Path) -> None:
    text = (TOML.partition("[[listen.https]]")[0] + TOML[TOML.index("[log]") :]).replace("workers = 2", "workers = 1")
    text = text.replace("[regions.eu]", TIERS + "[regions.eu]") + "prefetch = { links = true }\n"
    whole = Whole(text.replace("@ORIGIN@", str(origin.port)).replace("@DIR@", str(tmp_path)))
    await whole.start()
    try:
        await until(lambda: whole.supervisor.totals.gauges)
        found, rows = text_of(whole), page_rows()
    finally:
        await whole.supervisor.stop(1.0)
    helps = dict(re.findall(r"^# HELP (edge_[a-z0-9_]+) (.*)$", found, re.MULTILINE))
    for kind in OF_TIERS[1:]:
        assert any(name.startswith(kind) for name in helps), kind
    assert {f"edge_disk_{name}" for name in store_help.TIER} - rows.keys() == set()
    assert helps.keys() - rows.keys() == set(), "not in docs/metrics.md"
    assert [name for name, text in helps.items() if text.startswith(("The stores'", "The disk tier's"))] == []
    checked = promtool("metrics", given=found)  # names, units, types
    assert checked.returncode == 0, checked.stderr


async def test_the_page_for_people_has_every_label(whole: Whole, origin: ScriptedOrigin) -> None:
    client = await RawClient.connect(whole.port)
    await client.get("/", "a")
    await client.close()
    await until(lambda: any(meter.requests for meter in whole.supervisor.totals.routes.values()))
    rows = page_rows()
    for each in samples(text_of(whole)):
        name = each.name if each.name in rows else re.sub("_(bucket|sum|count)$", "", each.name)
        assert set(each.labels) - {"le"} == rows[name], name
    for name, (labels, _) in WORDS.items():
        assert rows[f"edge_{name}_total"] == set(labels)


def test_every_number_of_the_disk_tier_is_explained(tmp_path: Path) -> None:
    keeper = TierKeeper.open(tmp_path / "cache", Limits(64 << 20, 1 << 20), PurgeLog(), "a history")
    try:
        assert keeper.stats().keys() == store_help.TIER.keys()
    finally:
        keeper.close()
