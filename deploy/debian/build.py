"""`make deb`: a Debian package of the gateway with all that it needs but Python itself.

    /usr/lib/streamgate-edge   an environment of the system's Python: the program and its dependencies
    /usr/bin/edge              the command
    /etc/edge                  config.toml and sites/*.toml, which it includes; both stay the operator's
    edge.service, edge.socket, logrotate, docs, the GeoIP database

One rule: what is in the package is what this tree and `pyproject.toml` say; nothing is fetched when it is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NAME = "streamgate-edge"
HOME = Path("usr/lib") / NAME
EXTRAS = "s3,crypto,regex,auth,compress,otel"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
FOLDERS = ("etc/edge/sites",)
FILES = {  # where from, where to, mode
    "deploy/debian/config.toml": ("etc/edge/config.toml", 0o640),
    "deploy/debian/logrotate": (f"etc/logrotate.d/{NAME}", 0o644),
    "deploy/edge.service": ("lib/systemd/system/edge.service", 0o644),
    "deploy/edge.socket": ("lib/systemd/system/edge.socket", 0o644),
    "geoip/edge-country.mmdb": (f"usr/share/{NAME}/edge-country.mmdb", 0o644),
    "geoip/LICENSE-unicode.txt": (f"usr/share/doc/{NAME}/LICENSE-unicode.txt", 0o644),
    "config.example.toml": (f"usr/share/doc/{NAME}/config.example.toml", 0o644),
    "CHANGELOG.md": (f"usr/share/doc/{NAME}/CHANGELOG.md", 0o644),
    "LICENSE": (f"usr/share/doc/{NAME}/copyright", 0o644),
    "deploy/alerts.yml": (f"usr/share/doc/{NAME}/alerts.yml", 0o644),
    "deploy/grafana.json": (f"usr/share/doc/{NAME}/grafana.json", 0o644),
}
CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: StreamGate Edge <edge@localhost>
Section: web
Priority: optional
Depends: python3 (>= {python}), python3 (<< {next_python}), adduser, ca-certificates
Suggests: logrotate
Installed-Size: {size}
Description: L7 reverse proxy and edge gateway
 CDN cache, load balancing, regions that fail over, HTTP/2, applications in
 Python, recovery points; changes without a failed request.
"""


def run(*command: str | Path) -> str:
    """A command's output; its failure is ours."""
    return subprocess.run([str(each) for each in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def environment(stage: Path, work: Path) -> str:
    """Put the program and its dependencies into the tree; the program's version."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", work, ROOT)
    (wheel,) = work.glob("streamgate-*.whl")
    home = stage / HOME
    packages = home / "lib" / f"python{PYTHON}" / "site-packages"
    run(*pip, "install", "--no-compile", "--target", packages, f"{wheel}[{EXTRAS}]")
    shutil.rmtree(packages / "bin", ignore_errors=True)
    run(
        *(sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", stage, "-p", "/", packages),
    )
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin" / "python3").symlink_to("/usr/bin/python3")
    command = home / "bin" / "edge"
    command.write_text(f"#!/{HOME}/bin/python3 -I\nfrom edge.cli.begin import main\n\nmain()\n")
    command.chmod(0o755)
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/edge").symlink_to(f"/{HOME}/bin/edge")
    return wheel.name.split("-")[1]


def files(stage: Path) -> None:
    """Everything else."""
    for folder in FOLDERS:
        (stage / folder).mkdir(parents=True)
    for source, (target, mode) in FILES.items():
        place = stage / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, place)
        place.chmod(mode)
    shutil.copytree(ROOT / "docs", stage / "usr/share/doc" / NAME, dirs_exist_ok=True)


def older_systemd(stage: Path) -> None:
    """`Type=notify-reload` came with systemd 253; an older one ignores the line, and knows neither start nor reload."""
    version = run("systemctl", "--version").split()[1] if shutil.which("systemctl") else "0"
    unit = stage / "lib/systemd/system/edge.service"
    if int(version) < 253:
        text = unit.read_text()
        unit.write_text(text.replace("Type=notify-reload\n", "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n"))


def control(stage: Path, version: str) -> str:
    """What dpkg has to know; the package's file name."""
    place = stage / "DEBIAN"
    place.mkdir()
    size = sum(each.lstat().st_size for each in stage.rglob("*")) // 1024
    architecture = run("dpkg", "--print-architecture")
    following = f"{sys.version_info.major}.{sys.version_info.minor + 1}"
    facts = {"name": NAME, "version": version, "architecture": architecture, "size": size}
    (place / "control").write_text(CONTROL.format(python=PYTHON, next_python=following, **facts))
    own = [target for target, _ in FILES.values() if target.startswith("etc/")]
    (place / "conffiles").write_text("".join(f"/{target}\n" for target in own))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / script, place / script)
        (place / script).chmod(0o755)
    return f"{NAME}_{version}_{architecture}.deb"


def build(target: Path) -> Path:
    """The package, in that folder."""
    target.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        stage, work = Path(folder) / "stage", Path(folder) / "work"
        stage.mkdir(mode=0o755)
        work.mkdir()
        version = environment(stage, work)
        files(stage)
        older_systemd(stage)
        package = target / control(stage, version)
        run("dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", stage, package)
    return package


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the folder that the package is put into")
    print(build(parser.parse_args().target))
