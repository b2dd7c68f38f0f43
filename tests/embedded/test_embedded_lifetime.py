"""Nothing is left running or locked, and no data lost, whoever gets killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from chatter_db.embedded import lease, locks, wait_until_stopped
from chatter_db.embedded.account import Account
from chatter_db.errors import EmbeddedServerError
from tests.clusters import running
from tests.polling import wait_until

from .processes import (
    UNSAFE,
    WITHOUT_REST,
    Holder,
    answers,
    is_alive,
    postmaster_pid,
    supervisor_pids,
)

Hold = Callable[..., Holder]
START_ON_TAKEN_PORT = (
    WITHOUT_REST
    + """
from pathlib import Path
from chatter_db.embedded import supervisor
from chatter_db.embedded.data_dir import DataDir

ports = iter([int(sys.argv[3]), supervisor._free_port()])
supervisor._free_port = lambda: next(ports)
print(supervisor.start_postgres(DataDir(Path(sys.argv[1])), Path(sys.argv[2]), ["fsync=off"]))
"""
)


def kill_supervisor(data_dir: Path) -> None:
    (supervisor,) = supervisor_pids(data_dir)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not is_alive(supervisor), "supervisor dead")


def assert_data_kept(data_dir: Path) -> None:
    with lease(data_dir, settings=UNSAFE) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("select word from kept").fetchall() == [("still here",)]
        assert len(supervisor_pids(data_dir)) == 1


def assert_all_gone(data_dir: Path, port: int, pids: list[int]) -> None:
    wait_until(lambda: not answers(port), "port closed", 2.0)
    wait_until(lambda: not any(map(is_alive, pids)), "processes gone", 2.0)
    assert not supervisor_pids(data_dir)
    assert not (data_dir / "cluster" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("how", "group"),
    [
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
        (signal.SIGINT, False),
        (signal.SIGINT, True),
    ],
)
def test_user_is_killed(how: signal.Signals, group: bool, data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir).ready()
    pids = [postmaster_pid(data_dir), *supervisor_pids(data_dir)]
    assert len(pids) == 2
    holder.kill(how, group=group)
    assert_all_gone(data_dir, holder.port, pids)
    assert_data_kept(data_dir)


def test_one_of_two_users_is_killed(data_dir: Path, hold: Hold) -> None:
    first, second = hold(data_dir).ready(), hold(data_dir).ready()
    first.kill(signal.SIGKILL)
    with psycopg.connect(second.url) as connection:
        assert connection.execute("select word from kept").fetchall() == [("still here",)]
    pids = [postmaster_pid(data_dir), *supervisor_pids(data_dir)]
    second.kill(signal.SIGKILL)
    assert_all_gone(data_dir, second.port, pids)


def test_first_start_is_killed(directory: Path, hold: Hold) -> None:
    data_dir = directory / "data"
    holder = hold(data_dir)
    wait_until(lambda: any(data_dir.glob("cluster.new-*/base/1")), "initdb at work")
    holder.kill(signal.SIGKILL, group=True)
    assert not (data_dir / "cluster").exists()
    with lease(data_dir, settings=UNSAFE) as server, psycopg.connect(server.url):
        assert not any(data_dir.glob("cluster.new-*"))


def test_starter_is_killed_before_the_server_is_ready(data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir)
    wait_until((data_dir / "cluster" / "postmaster.pid").exists, "Postgres starting")
    holder.kill(signal.SIGKILL, group=True)
    wait_until_stopped(data_dir)
    wait_until(lambda: not supervisor_pids(data_dir), "supervisor gone")
    assert not (data_dir / "cluster" / "postmaster.pid").exists()
    assert_data_kept(data_dir)


def test_supervisor_is_killed(data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir).ready()
    postmaster = postmaster_pid(data_dir)
    kill_supervisor(data_dir)
    with lease(data_dir) as server:
        assert (server.url, postmaster_pid(data_dir)) == (holder.url, postmaster)
        (successor,) = supervisor_pids(data_dir)
        assert holder.end() == ""
        with psycopg.connect(server.url):
            pass
    assert_all_gone(data_dir, holder.port, [postmaster, successor])


def test_server_without_supervisor_or_user_is_adopted(data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir).ready()
    postmaster = postmaster_pid(data_dir)
    kill_supervisor(data_dir)
    holder.kill(signal.SIGKILL)
    with lease(data_dir) as server:
        assert (server.url, postmaster_pid(data_dir)) == (holder.url, postmaster)
    assert_all_gone(data_dir, holder.port, [postmaster])


@pytest.mark.parametrize("adopted", [False, True])
def test_postgres_is_killed(adopted: bool, data_dir: Path, hold: Hold) -> None:
    hold(data_dir).ready()
    if adopted:
        kill_supervisor(data_dir)
        hold(data_dir).ready()
    killed = postmaster_pid(data_dir)
    os.kill(killed, signal.SIGKILL)
    assert_data_kept(data_dir)
    assert postmaster_pid(data_dir) != killed


def test_stop_that_was_interrupted_is_waited_for(data_dir: Path, hold: Hold) -> None:
    """The supervisor dies while Postgres shuts down: the next one starts it again."""
    hold(data_dir).ready()
    kill_supervisor(data_dir)
    os.kill(postmaster_pid(data_dir), signal.SIGINT)
    assert_data_kept(data_dir)


def test_machine_crash_and_pid_of_another_process(data_dir: Path) -> None:
    account = Account.for_cluster(data_dir / "cluster")
    bystander = subprocess.Popen(
        ["sleep", "60"], user=account.uid, group=account.gid, cwd="/", start_new_session=True
    )
    try:
        with lease(data_dir, settings=UNSAFE):
            crashed = (data_dir / "cluster" / "postmaster.pid").read_text().splitlines()
        wait_until_stopped(data_dir)
        crashed[0] = str(bystander.pid)
        (data_dir / "cluster" / "postmaster.pid").write_text("\n".join(crashed) + "\n")
        assert_data_kept(data_dir)
        wait_until_stopped(data_dir)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_server_that_was_started_by_hand_is_let_alone(data_dir: Path) -> None:
    with lease(data_dir, settings=UNSAFE) as server:
        binaries = server.bin_dir
    wait_until_stopped(data_dir)
    with running(data_dir / "cluster", binaries):
        pid_file = data_dir / "cluster" / "postmaster.pid"
        before = pid_file.read_text()
        # Used, or refused; taken for a leftover, it would end, or another would start beside it.
        with suppress(EmbeddedServerError), lease(data_dir, settings=UNSAFE):
            pass
        wait_until_stopped(data_dir)
        assert pid_file.read_text() == before
    assert_data_kept(data_dir)


def test_new_user_comes_while_the_supervisor_wants_to_stop(data_dir: Path, hold: Hold) -> None:
    """The supervisor has seen the last lease end, and then somebody else gets one."""
    holder = hold(data_dir).ready()
    postmaster = postmaster_pid(data_dir)
    with locks.taken(data_dir / "chatter-db.lock", timeout=1.0):
        assert holder.end() == ""
        newcomer = locks.open_lock(data_dir / "leases.lock")
        locks.share(newcomer)
    with lease(data_dir) as server:
        assert (server.url, postmaster_pid(data_dir)) == (holder.url, postmaster)
    os.close(newcomer)
    assert_all_gone(data_dir, holder.port, [postmaster])


def test_stop_does_not_wait_for_clients(data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir).ready()
    with psycopg.connect(holder.url) as connection:
        connection.execute("begin")
        began = time.monotonic()
        holder.kill(signal.SIGTERM)
        wait_until_stopped(data_dir)
        assert time.monotonic() - began < 1.0
        connection.close()


def test_directory_is_removed_under_the_server(directory: Path, data_dir: Path, hold: Hold) -> None:
    holder = hold(data_dir).ready()
    pids = [postmaster_pid(data_dir), *supervisor_pids(data_dir)]
    data_dir.rename(directory / "moved")
    holder.kill(signal.SIGTERM)
    wait_until(lambda: not any(map(is_alive, pids)), "processes gone")


def test_chosen_port_is_taken_meanwhile(data_dir: Path, hold: Hold, directory: Path) -> None:
    with lease(data_dir, settings=UNSAFE) as server:
        bin_dir = server.bin_dir
    wait_until_stopped(data_dir)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ran = subprocess.run(
            [sys.executable, "-c", START_ON_TAKEN_PORT, data_dir, bin_dir, str(taken)],
            capture_output=True,
            text=True,
            check=True,
        )
        with lease(data_dir) as server:
            assert postmaster_pid(data_dir) == int(ran.stdout)
            assert server.port != taken
    assert "could not bind IPv4 address" in server.log_file.read_text()
