"""What is asked for most, over all workers: their samples of the access log joined.

One rule: parts of all requests are what a sample can tell; rates are these parts of what was counted, never the size of
the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def merged(reports: Sequence[dict[str, Any]], limit: int, requests_per_s: float) -> dict[str, Any]:
    """The reports of all workers as one; rates are shares of what all workers did together."""
    sampled = sum(report["sampled"] for report in reports)
    sums: dict[tuple[str, str], list[int]] = {}
    for report in reports:
        for route, url, *counts in report["rows"]:
            own = sums.setdefault((route, url), [0, 0, 0, 0])
            for at, value in enumerate(counts):
                own[at] += value
    rows = []
    for (route, url), (count, hits, errors, sent) in sorted(sums.items(), key=lambda item: -item[1][0])[:limit]:
        share = count / sampled
        rows.append(
            {
                "url": url,
                "route": route,
                "requests_per_s": round(share * requests_per_s, 3),
                "share": round(share, 5),
                "hit_rate": round(hits / count, 4) if route else None,
                "error_rate": round(errors / count, 4),
                "bytes_per_s": round(sent / count * share * requests_per_s, 1),
            }
        )
    window = max((report["window_s"] for report in reports), default=0.0)
    return {"objects": rows, "sampled": sampled, "window_s": round(window, 1)}
