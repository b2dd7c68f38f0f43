"""Processes that hold leases, to be killed, and questions about processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

UNSAFE = {"fsync": "off"}
ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0

# chatter_db without its __init__, whose imports would take most of the time of these tests.
WITHOUT_REST = f"""
import sys, types
package = sys.modules["chatter_db"] = types.ModuleType("chatter_db")
package.__path__ = [{str(ROOT / "chatter_db")!r}]
"""
HOLD = (
    WITHOUT_REST
    + """
import json, signal
from pathlib import Path
from chatter_db.embedded import lease

# A shell that starts the tests in the background hands on an ignored Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
data_dir, bin_dir, settings = json.loads(sys.argv[1])
with lease(Path(data_dir), bin_dir and Path(bin_dir), settings) as server:
    print(json.dumps({"port": server.port, "url": server.url}), flush=True)
    sys.stdin.read()
"""
)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody waits for does not."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1] not in ("", "Z")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def command_lines() -> str:
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, check=True)
    return listed.stdout.decode(errors="replace")


def supervisor_pids(data_dir: Path) -> list[int]:
    mine = f"run_supervisor.py {data_dir} "
    return [int(line.split()[0]) for line in command_lines().splitlines() if mine in line]


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "cluster" / "postmaster.pid").read_text().splitlines()[0])


@lru_cache
def interpreter_for(user: str) -> str | None:
    """A Python of this version that another OS user can run, with our packages, if any."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            ran = subprocess.run(
                [python, "-c", "import psycopg, pydantic_settings"],
                env=environment(),
                user=user,
                extra_groups=[],
                cwd="/",
                check=False,
            )
        except OSError:
            continue
        if ran.returncode == 0:
            return python
    return None


def environment(**changed: str) -> dict[str, str]:
    """An environment without HOME in which our packages can be imported."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": sysconfig.get_path("purelib")} | changed


@dataclass
class Holder:
    """A process that takes a lease and keeps it until it is ended or killed."""

    data_dir: Path
    bin_dir: Path | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: UNSAFE)
    user: str | None = None
    env: Mapping[str, str] | None = None
    port: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        python = interpreter_for(self.user) if self.user else sys.executable
        assert python is not None
        bin_dir = self.bin_dir and str(self.bin_dir)
        arguments = json.dumps([str(self.data_dir), bin_dir, dict(self.settings)])
        self.process = subprocess.Popen(
            [python, "-c", HOLD, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.env,
            user=self.user,
            extra_groups=[] if self.user else None,
            cwd="/",
        )

    def ready(self) -> "Holder":
        """Wait for the lease."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        answer = json.loads(line)
        self.port, self.url = answer["port"], answer["url"]
        return self

    def kill(self, how: signal.Signals, *, group: bool = False) -> None:
        """Send a signal and wait for the process to end by it."""
        if group:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.communicate()
        assert self.process.returncode == -how

    def end(self) -> str:
        """Let the process end by itself; returns what it wrote to stderr."""
        return self.process.communicate()[1]


def copy_of(source: Path, target: Path) -> Path:
    """Copy a directory with owners and modes."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)
    return target
