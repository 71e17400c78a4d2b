"""The table `[log]`: what is written down of requests, and where traces of them go.

One rule: a URL is taken apart here, so that nothing of it is found wrong later; where it leads is not looked at.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import PlainValidator, ValidationInfo

from edge.config.auth import parse_service
from edge.config.paths import parse_path
from edge.config.types import Percent, Section, ValueKind, entry, shown

TRACES = "/v1/traces"  # where a collector takes them (OTLP/HTTP)


def parse_collector(value: object) -> str:
    """`"http://127.0.0.1:4318"`, as OpenTelemetry writes a collector: the path of traces is put to it."""
    try:
        found = parse_service(value)
    except ValueError:
        raise ValueError(f'must be a URL such as "http://127.0.0.1:4318", got {shown(value)}') from None
    if find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is None:
        raise ValueError("needs OpenTelemetry: pip install 'streamgate[otel]'")
    path = found.target.rstrip("/")
    return f"{found.scheme}://{found.authority}{path if path.endswith(TRACES) else path + TRACES}"


def parse_target(value: object, info: ValidationInfo) -> str:
    """A file, or one of two words."""
    return value if value in ("stdout", "off") else parse_path(value, info)


class Log(Section):
    """`[log]`."""

    access: Annotated[str, PlainValidator(parse_target), ValueKind("path")] = entry(
        "var/log/access.jsonl", 'Where the access log goes: a file, "stdout" or "off"'
    )
    format: Literal["json", "combined"] = entry("json", "JSON lines, or the combined format of web servers")
    level: Literal["debug", "info", "warning", "error"] = entry("info", "Least severe of the messages on stderr")
    otlp: Annotated[str, PlainValidator(parse_collector), ValueKind("URL")] | None = entry(
        None, "Collector that takes traces (OTLP over HTTP); left out: no traces"
    )
    sample: Percent = entry("1%", "Share of requests that are traced, of those whose traceparent does not decide it")
    sampled_by: Literal["anyone", "trusted"] = entry(
        "anyone", "Whose traceparent decides whether a request is traced: every client's, or trusted proxies' alone"
    )
