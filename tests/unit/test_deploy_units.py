"""The units in `deploy/` say what the program does."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

from edge.cli.main import main
from edge.config.loader import load_text
from edge.config.types import parse_address

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SMALLEST = 'listen.http = ["127.0.0.1:0"]\n[[pools.a.backends]]\nurl = "http://127.0.0.1:9"\n[[routes]]\npool = "a"\n'


def unit(name: str) -> dict[str, dict[str, str]]:
    """A unit's sections; of a key that stands there more than once, all values by lines."""

    class Lists(dict[str, str]):
        def __setitem__(self, key: str, value: object) -> None:
            if isinstance(value, list) and key in self and isinstance(self[key], list):
                value = [*self[key], *value]
            super().__setitem__(key, value)  # type: ignore[assignment]

    parser = configparser.ConfigParser(dict_type=Lists, strict=False, interpolation=None)  # type: ignore[arg-type]
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_service_starts_and_stops_as_the_program_does() -> None:
    service = unit("edge.service")["Service"]
    program, command, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/edge")
    parameters = main.commands[command].make_context(command, list(arguments)).params
    assert str(parameters["path"]) == "/etc/edge/config.toml"
    limits = load_text(SMALLEST, "a.toml").limits
    assert int(service["TimeoutStopSec"]) > limits.shutdown_delay + limits.shutdown_grace
    assert (service["Type"], service["NotifyAccess"]) == ("notify-reload", "all")  # a successor tells, too
    assert service["KillMode"] == "mixed"  # SIGTERM is the supervisor's to pass on


def test_the_sockets_are_addresses_that_a_file_may_name() -> None:
    sockets = unit("edge.socket")["Socket"]
    assert [str(parse_address(each)) for each in sockets["ListenStream"].split()] == ["0.0.0.0:80", "0.0.0.0:443"]
    assert sockets["Service"] == "edge.service"
