"""`chatter psql`."""

import os
import signal
import subprocess

import typer


def psql(context: typer.Context) -> None:
    """Open psql on the books; arguments go on to it (chatter psql -- -c 'select 1').

    Uses the psql on PATH, else the embedded server's own.
    """
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict

    from chatter_db.cli.books import migrated_url
    from chatter_db.embedded import find_client
    from chatter_db.settings import settings

    with migrated_url() as url:
        program = find_client("psql", settings().postgres_bin)
        # By environment, not by argument: arguments can be read by everybody. What libpq has no
        # variable for (keepalives and the like) is left out.
        parameters = conninfo_to_dict(url)
        environment = {
            known.envvar.decode(): str(parameters[keyword])
            for known in pq.Conninfo.get_defaults()
            if known.envvar and (keyword := known.keyword.decode()) in parameters
        }
        # Ctrl-C is for psql, which cancels its query and stays.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            done = subprocess.run(
                [program, *context.args], env={**os.environ, **environment}, check=False
            )
        finally:
            signal.signal(signal.SIGINT, before)
    # One that a signal ended has it below 0: a shell says 128 and more of that.
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
