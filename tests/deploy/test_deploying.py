"""The files of .github/deploy: they are read by what reads them, and say what there is to say."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from chatter_db.settings import Settings
from tests import forked

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / ".github" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text("utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
CHATTER = Path(sys.executable).with_name("chatter")


def unit(path: Path) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, "utf-8")
    return parser


def commands() -> dict[str, list[str]]:
    """What is run where, without the program's name."""
    found = {path.name: shlex.split(unit(path)["Service"]["ExecStart"])[1:] for path in UNITS}
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            found[f"compose {name}"] = service["command"]
    (default,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    found["Dockerfile"] = yaml.safe_load(default)
    for line in re.findall(r"(?:bin/|exec serve |`)chatter ([a-z][^`\n]*)", README):
        found[f"README {line}"] = shlex.split(line)
    return found


README = (DEPLOY / "README.md").read_text("utf-8")
COMMANDS = commands()


def test_every_way_to_run_it_is_there() -> None:
    assert [path.name for path in UNITS] == ["chatter-serve.service", "chatter-worker.service"]
    assert COMMANDS.keys() >= {"compose migrate", "compose serve", "compose worker", "Dockerfile"}
    assert {command[0] for command in COMMANDS.values()} >= {"serve", "worker", "migrate", "key"}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_is_one_of_chatter(command: list[str]) -> None:
    """An option that there isn't is refused before --help is heard."""
    done = forked.run(["chatter", *command, "--help"], os.environ, ROOT)
    assert done.returncode == 0, done.stderr
    assert f"Usage: chatter {command[0]}" in done.stdout


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_setting_is_one_that_is_read(path: Path) -> None:
    named = set(re.findall(r"\bCHATTER_[A-Z_]+", path.read_text("utf-8")))
    assert named <= {f"CHATTER_{name.upper()}" for name in Settings.model_fields}


def test_every_process_is_told_its_database() -> None:
    for service in COMPOSE["services"].values():
        if "build" in service:
            assert "@postgres/chatter" in service["environment"]["CHATTER_DATABASE_URL"]
    for path in UNITS:
        assert unit(path)["Service"]["EnvironmentFile"].startswith("/etc/chatter/")


def test_compose_asks_for_every_password_the_readme_makes() -> None:
    text = (DEPLOY / "docker-compose.yml").read_text("utf-8")
    asked = set(re.findall(r"\$\{([A-Z]+_PASSWORD):\?\}", text))
    (made,) = re.findall(r"^for name in ([A-Z ]+); do", README, re.MULTILINE)
    assert asked == {f"{name}_PASSWORD" for name in made.split()}
    taken = set(re.findall(r"^\\getenv \w+ (\w+)$", (DEPLOY / "logins.sql").read_text(), re.M))
    assert taken < asked and taken <= COMPOSE["services"]["postgres"]["environment"].keys()


def test_what_compose_refers_to_is_there() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    for service in services.values():
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == ROOT and (context / service["build"]["dockerfile"]).is_file()
        for other, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in volumes


def test_the_image_copies_what_the_wheel_is_made_of() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert {"chatter_db", "migrations", "sql", "pyproject.toml", ".ci/requirements.lock"} <= set(
        copied
    )
    for source in copied:
        assert (ROOT / source).exists(), source


def test_the_image_has_the_versions_of_the_lock() -> None:
    (script,) = re.findall(r"sed -E '([^']+)' \.ci/requirements\.lock", DOCKERFILE)
    lock = ROOT / ".ci" / "requirements.lock"
    made = subprocess.run(["sed", "-E", script, lock], capture_output=True, text=True, check=True)
    lines = made.stdout.splitlines()
    pinned = re.findall(r"^[a-z].*==", lock.read_text("utf-8"), re.MULTILINE)
    assert len(lines) == len(pinned) > 50
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+(\[[a-z,-]+\])?==[\w.+!-]+( ; .+)?", line), line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    """As it is, but for the place of the program, which must be one that exists."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text("utf-8").replace("/opt/chatter/bin/chatter", os.fspath(CHATTER)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
