"""Makes a Postgres cluster, and checks one that is there."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from chatter_db.embedded.account import Account
from chatter_db.embedded.binaries import Binaries
from chatter_db.embedded.data_dir import DataDir
from chatter_db.errors import EmbeddedServerError

USER = "chatter"
DATABASE = "chatter"
STAGING_PREFIX = "cluster.new-"


def ensure(data: DataDir, account: Account, binaries: Binaries, *, durable: bool) -> None:
    """Make the cluster, or see that these binaries fit the one that is there.

    Call it with the start lock held and no server running. With `durable` false the new
    files may not survive a crash of the machine.

    Raises EmbeddedServerError if the cluster can't be made or used.
    """
    for leftover in data.path.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if data.cluster.exists():
        _check(data, binaries)
    else:
        _create(data, account, binaries, durable=durable)


def _check(data: DataDir, binaries: Binaries) -> None:
    version_file = data.cluster / "PG_VERSION"
    if not version_file.exists() or not data.password_file.exists():
        missing = data.password_file if version_file.exists() else version_file
        raise EmbeddedServerError(
            f"{data.path} is damaged: {missing} is missing. Restore the directory from a backup,"
            " or choose another with CHATTER_DATA_DIR."
        )
    major = version_file.read_text(encoding="ascii").strip()
    if major != str(binaries.major):
        raise EmbeddedServerError(
            f"{data.path} was made by Postgres {major}, but the binaries in {binaries.bin_dir} are"
            f" version {binaries.version}. Set CHATTER_POSTGRES_BIN to binaries of version {major};"
            " or, to change the version, dump the database with those and load it into a new"
            " directory (CHATTER_DATA_DIR)."
        )


def _create(data: DataDir, account: Account, binaries: Binaries, *, durable: bool) -> None:
    _write_password(data.password_file, account)
    # Made aside and renamed at the end: a start that was killed leaves nothing half-made.
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=data.path))
    try:
        account.own(staging)
        _initdb(data, staging, account, binaries, durable=durable)
        _create_database(data, staging, account, binaries, durable=durable)
        staging.rename(data.cluster)
        _sync_directory(data.path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_password(path: Path, account: Account) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
        file.flush()
        os.fsync(descriptor)
    account.own(path)


def _initdb(
    data: DataDir, staging: Path, account: Account, binaries: Binaries, *, durable: bool
) -> None:
    arguments = [
        f"--pgdata={staging}",
        f"--username={USER}",
        f"--pwfile={data.password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]
    if binaries.major >= 17:
        # The same order and case rules on every OS, with no library of the OS involved.
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not durable:
        arguments.append("--no-sync")
    ran = account.run(binaries.bin_dir / "initdb", *arguments)
    if ran.returncode != 0:
        raise data.failure("initdb could not make a Postgres cluster", ran.stdout)


def _create_database(
    data: DataDir, staging: Path, account: Account, binaries: Binaries, *, durable: bool
) -> None:
    """Create the database before the server first runs, so that a cluster is whole or not there."""
    ran = account.run(
        binaries.bin_dir / "postgres",
        "--single",
        "-D",
        staging,
        "-c",
        "exit_on_error=on",
        "-c",
        f"fsync={'on' if durable else 'off'}",
        "postgres",
        stdin=f"create database {DATABASE}\n",
    )
    if ran.returncode != 0:
        raise data.failure("Postgres could not create its first database", ran.stdout)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
