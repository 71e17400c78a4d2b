"""`make deb`: the package is built, says what it is, and what is in it runs as its service would run it."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.builds import IS_COMPILED
from kit.ports import free_ports
from kit.processes import DIRECT, ROOT, Process

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(IS_COMPILED, reason="a package is made from the source tree"),
]
HOME = "usr/lib/streamgate-edge"


class Package:
    """A package and its tree."""

    def __init__(self, file: Path, tree: Path) -> None:
        self.file, self.tree = file, tree
        subprocess.run(["dpkg-deb", "--raw-extract", file, tree], check=True)
        listed = subprocess.run(["dpkg-deb", "--contents", file], check=True, stdout=subprocess.PIPE, text=True).stdout
        self.owners = {line.split()[1] for line in listed.splitlines()}

    def field(self, name: str) -> str:
        return subprocess.run(
            ["dpkg-deb", "--field", self.file, name], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def edge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, with the system's Python as its service has it."""
        command = [self.tree / HOME / "bin/python3", "-I", "-m", "edge.cli.begin", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    assert shutil.which("dpkg-deb"), "this test needs dpkg-deb (a Debian machine)"
    folder = tmp_path_factory.mktemp("deb")
    built = subprocess.run(
        [sys.executable, ROOT / "deploy/debian/build.py", folder],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    yield Package(Path(built.stdout.strip()), folder / "tree")
    shutil.rmtree(folder)


def test_it_says_what_it_is_and_needs(package: Package) -> None:
    assert package.field("Package") == "streamgate-edge"
    assert package.file.name == f"streamgate-edge_{package.field('Version')}_{package.field('Architecture')}.deb"
    assert f"python3 (>= 3.{sys.version_info.minor})" in package.field("Depends")
    assert package.owners == {"root/root"}
    kept = (package.tree / "DEBIAN/conffiles").read_text().split()
    assert kept == ["/etc/edge/config.toml", "/etc/logrotate.d/streamgate-edge"]
    assert stat.S_IMODE((package.tree / "etc/edge/config.toml").stat().st_mode) == 0o640, "it may hold secrets"
    assert (package.tree / "etc/edge/sites").is_dir()
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", package.tree / "DEBIAN" / script], check=True)


def test_unit_and_configuration_name_what_is_there(package: Package) -> None:
    unit = (package.tree / "lib/systemd/system/edge.service").read_text()
    program, config = re.search(r"ExecStart=/(\S+) run -c /(\S+)", unit).groups()  # type: ignore[union-attr]
    link = package.tree / program
    assert link.is_symlink() and (package.tree / str(link.readlink()).lstrip("/")).is_file()
    text = (package.tree / config).read_text()
    for path in re.findall(r'"(/[^"]+)"', text):
        if path.startswith("/usr"):
            assert (package.tree / path.lstrip("/")).is_file(), path
        else:
            assert re.match(r"/var/(lib|log)/edge", path), "all that its service may write to"
    assert "Failed to parse" not in subprocess.run(
        ["systemd-analyze", "verify", package.tree / "lib/systemd/system/edge.service"],
        *(), stderr=subprocess.PIPE, text=True, check=False,
    ).stderr, "the systemd of this machine knows every word"  # fmt: skip
    documented = re.search(r"Documentation=file:/(\S+)", unit)
    assert documented is not None and (package.tree / documented[1]).is_file()
    files = [path for path in package.tree.rglob("*") if path.suffix in (".py", ".toml", ".service", ".cfg")]
    assert not [path for path in files if str(ROOT).encode() in path.read_bytes()], "nothing of where it was built"


def test_the_command_runs_with_every_extra(package: Package) -> None:
    assert package.edge("--version").stdout.startswith("edge, version ")
    code = "import re2, brotli, isal, bcrypt, argon2, jwt, obstore, cryptography, opentelemetry.sdk, edge.adapters.otlp"
    subprocess.run([package.tree / HOME / "bin/python3", "-I", "-c", code], check=True)
    packages = package.tree / HOME / f"lib/python3.{sys.version_info.minor}/site-packages"
    assert (packages / "edge" / "__pycache__").is_dir(), "read compiled: nobody may write there later"


def test_its_configuration_serves(package: Package, tmp_path: Path) -> None:
    http, admin = free_ports(2)
    text = (package.tree / "etc/edge/config.toml").read_text()
    for was, now in (
        ('"0.0.0.0:80"', f'"127.0.0.1:{http}"'),
        ("127.0.0.1:9900", f"127.0.0.1:{admin}"),
        ("/var/lib/edge", f"{tmp_path}/lib"),
        ("/var/log/edge", f"{tmp_path}/log"),
        ('"/usr/share', f'"{package.tree}/usr/share'),
    ):
        assert was in text
        text = text.replace(was, now)
    (tmp_path / "config.toml").write_text(text)
    assert package.edge("check", "-c", str(tmp_path / "config.toml")).returncode == 0
    python = str(package.tree / HOME / "bin/python3")
    command = [python, "-I", "-m", "edge.cli.begin", "run", "-c", str(tmp_path / "config.toml")]
    gateway = Process(command, tmp_path, "edge")
    try:
        gateway.wait_ready(lambda: answers(f"http://127.0.0.1:{admin}/readyz"))
    finally:
        assert gateway.stop() == 0
    assert (tmp_path / "lib/state.sqlite").is_file() and (tmp_path / "lib/admin.token").is_file()


def answers(url: str) -> bool:
    """Whether it is answered with 200."""
    try:
        with DIRECT.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
