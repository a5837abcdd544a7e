"""A PostgreSQL server on loopback, from the system's package, with its own database cluster."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
from sqlalchemy import make_url, text
from sqlalchemy.engine import create_engine

from tests.services.processes import Server, free_port

OWNER = "tests"


def _programs() -> Path:
    """Folder with the newest installed initdb and postgres."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not candidates and not on_path:
        raise RuntimeError(
            "the tests need PostgreSQL, and no initdb is in /usr/lib/postgresql/*/bin or on the PATH: "
            "run tests/services/install.sh postgresql as root (apt-get install postgresql)"
        )
    return candidates[-1].parent if candidates else Path(on_path).parent


def _initialise(programs: Path, folder: Path, user: str | None, password: str) -> None:
    secret = folder / "password"
    secret.write_text(password)
    if user:
        for path in (folder, secret):
            shutil.chown(path, user, user)
    as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
    command = [programs / "initdb", "-D", folder / "data", "-U", OWNER, f"--pwfile={secret}", "--auth=scram-sha-256"]
    done = subprocess.run([*command, "--no-sync"], cwd=folder, capture_output=True, text=True, **as_user)
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr}")


def _accepts(url: str) -> bool:
    try:
        psycopg2.connect(url).close()
    except psycopg2.OperationalError:
        return False
    return True


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A running server; yields the SQLAlchemy URL of its first database. Stopped, and its data removed, at the end.

    PostgreSQL refuses to run as root: for root it runs as the user that its package created, in a folder that this
    user can read (other users cannot read pytest's folders).
    """
    programs, port, password = _programs(), free_port(), secrets.token_hex(16)
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        _initialise(programs, folder, user, password)
        server = Server(
            [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"],
            log=folder / "server.log",
            user=user,
            stop_signal=signal.SIGINT,  # disconnects its clients; SIGTERM would wait for them
        )
        try:
            address = f"{OWNER}:{password}@127.0.0.1:{port}/postgres"
            server.wait_until(lambda: _accepts(f"postgresql://{address}"), seconds=60)
            yield f"postgresql+psycopg2://{address}"
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def new_database(url: str, name: str) -> str:
    """Create the empty database `name` on the server of `url`; returns its SQLAlchemy URL."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return make_url(url).set(database=name).render_as_string(hide_password=False)
