"""What tests of several rooms share: few threads, a private PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

# Before anything imports numpy or torch: tests run beside each other, and threads that fight for cores are slower.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# A test says what settings are in force; those of the machine it runs on are not among them.
for variable in [each for each in os.environ if each.startswith("FIRSTREAD_") and "__" in each]:
    del os.environ[variable]
os.environ.pop("FIRSTREAD_CONFIG", None)

import pytest  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402

from tests.peers import absent, free_port  # noqa: E402

# No deadline: machines are shared. The same examples in every run of CI; at home each run looks elsewhere.
hypothesis_settings.register_profile("firstread", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis_settings.load_profile("firstread")

_numbers = count(1)


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb") or absent("PostgreSQL is not installed: run deploy/install-peers.sh as root")
    return Path(program).parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[tuple[Path, int]]:
    """A private PostgreSQL server on 127.0.0.1: its programs' folder and its port. Ended with the session."""
    programs = _postgres_programs()
    # PostgreSQL refuses to run as root, and its user must reach the folder: pytest's own is closed to others.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="firstread-postgres-"))
    if user:
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    cluster, port = folder / "cluster", free_port()

    def postgres(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(programs / program), *arguments],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        if done.returncode:
            pytest.fail(f"{program} failed: {(folder / 'log').read_text(errors='replace')[-2000:]}")

    with (folder / "log").open("ab") as log:
        postgres(
            "initdb", "-D", str(cluster), "-U", "firstread", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        # Durability is not what these tests ask of PostgreSQL, and without fsync it starts at once.
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        postgres("pg_ctl", "-D", str(cluster), "-w", "-t", "60", "-o", options, "start")
        try:
            yield programs, port
        finally:
            postgres("pg_ctl", "-D", str(cluster), "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: tuple[Path, int]) -> str:
    """SQLAlchemy URL of an empty PostgreSQL database of this test's own."""
    programs, port = postgres_server
    name = f"test_{os.getpid()}_{next(_numbers)}"
    arguments = ["-h", "127.0.0.1", "-p", str(port), "-U", "firstread", name]
    subprocess.run([str(programs / "createdb"), *arguments], check=True, timeout=60)
    return f"postgresql+psycopg://firstread@127.0.0.1:{port}/{name}"
