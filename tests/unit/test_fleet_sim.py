"""The simulation's table and plot in docs/scale.md are what `python -m bench.fleet_sim` says."""

from __future__ import annotations

from pathlib import Path
from random import Random

from bench.fleet_sim import EDGES, Row, Site, plot, requests_of, simulate

DOCS = Path(__file__).resolve().parents[2] / "docs"


def line_of(row: Row) -> str:
    """A row of the table."""
    shared = f"{row.from_tier:.1%}".replace("%", " %") if row.tier else ""
    own, origin = (f"{share:.1%}".replace("%", " %") for share in (row.hit, row.origin))
    return f"| {row.edges} | {'yes' if row.tier else 'no'} | {own} | {shared} | {origin} |".replace("|  |", "| |")


def test_the_documented_table_and_plot_are_of_this_code() -> None:
    site = Site()
    asked = requests_of(site, Random(1))
    rows = [simulate(site, asked, edges, tier, Random(2)) for edges in EDGES for tier in (False, True)]
    text = (DOCS / "scale.md").read_text()
    assert [line_of(row) for row in rows if line_of(row) not in text] == []
    assert plot(rows) == (DOCS / "fleet.svg").read_text(), "python -m bench.fleet_sim --plot docs/fleet.svg"
    assert "](fleet.svg)" in text
