"""``firstread config check``: whether what the settings name is there and answers, asked without changing anything."""

from __future__ import annotations

import enum
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from firstread.agent.config import (
    WORKLIST_DESTINATION,
    Destination,
    DicomDestination,
    DicomwebDestination,
    PeerSettings,
    Settings,
)
from firstread.agent.config_wire import archive_peer, certificates, dicom_peer, served_tls, tls_context, web_service
from firstread.agent.tls import SOON_DAYS, TlsFiles, TlsFilesError, days_left, server_context


class Level(enum.StrEnum):
    """How bad an answer is."""

    OK = "ok"
    NOTE = "note"
    """Works, but somebody should know."""
    PROBLEM = "problem"


@dataclass(frozen=True)
class CheckLine:
    """One thing that was asked, and the answer in a sentence that says what to do."""

    subject: str
    level: Level
    text: str

    @property
    def ok(self) -> bool:
        """False for what keeps the agent from working as it is set."""
        return self.level is not Level.PROBLEM


def check(settings: Settings) -> list[CheckLine]:
    """Asks storage, database, bundle, ports and, all at once, every destination. Never raises for what it finds."""
    runs = _agent_runs(settings.spool)
    asked: list[tuple[str, Callable[[], CheckLine]]] = [
        ("[storage] path", lambda: _storage(settings)),
        ("[database] url", lambda: _database(settings)),
        ("[analysis] bundle", lambda: _bundle(settings)),
        ("[study] eligibility_file", lambda: _spellings(settings)),
        ("[dicom] port", lambda: _port("[dicom] port", settings.dicom.host, settings.dicom.port, runs)),
        ("[web] port", lambda: _port("[web] port", settings.web.host, settings.web.port, runs)),
    ]
    if settings.worklist.enabled:
        host, port = settings.worklist.mllp_host, settings.worklist.mllp_port
        asked.append(("[worklist] mllp_port", lambda: _port("[worklist] mllp_port", host, port, runs)))
        if (tls_port := settings.worklist.mllp_tls_port) is not None:
            tls_host = settings.worklist.mllp_tls_host
            asked.append(
                ("[worklist] mllp_tls_port", lambda: _port("[worklist] mllp_tls_port", tls_host, tls_port, runs))
            )
    asked += [(files.section, partial(_served, files)) for files in served_tls(settings).values()]
    asked += [(name, partial(_certificate, name, path)) for name, path in certificates(settings).items()]
    if settings.archive.named:
        asked.append(("[archive]", partial(_archive, settings)))
    asked += [(f"[[peers]] {peer.ae_title}", partial(_peer, settings, peer)) for peer in settings.peers]
    for destination in settings.all_destinations:
        asked.append((destination.name, _question(settings, destination, runs)))
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        return list(pool.map(lambda pair: _answered(*pair), asked))


def _answered(subject: str, question: Callable[[], CheckLine]) -> CheckLine:
    # A check must name its subject whatever a library throws: the other answers are still wanted.
    try:
        return question()
    except Exception as error:
        return CheckLine(subject, Level.PROBLEM, f"could not be asked: {type(error).__name__}: {error}")


def _agent_runs(spool: Path) -> bool:
    """True when an agent holds this spool's lock."""
    try:
        descriptor = os.open(spool / "agent.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _storage(settings: Settings) -> CheckLine:
    subject, spool = "[storage] path", settings.spool
    there = spool.exists()
    # A check that made the folder as another user would keep the service out of it.
    folder = spool if there else next(parent for parent in spool.parents if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".firstread-check-") as probe:
            probe.write(b"firstread")
            probe.flush()
            os.fsync(probe.fileno())
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return CheckLine(
            subject, Level.PROBLEM, f"{folder} cannot be written ({error.strerror}): give its owner write access"
        )
    free, reserve = shutil.disk_usage(folder).free // 1024**2, settings.storage.reserve_mb
    if free < reserve:
        return CheckLine(
            subject, Level.PROBLEM, f"{free} MB free, less than reserve_mb = {reserve}: every film would be refused"
        )
    if not there:
        return CheckLine(subject, Level.OK, f"{spool} will be made when the agent starts, {free} MB free")
    if (owner := spool.stat().st_uid) != os.geteuid():
        return CheckLine(
            subject,
            Level.NOTE,
            f"{spool} belongs to user {owner}, and user {os.geteuid()} asks: run the agent as {owner}",
        )
    return CheckLine(subject, Level.OK, f"{spool} is written durably, {free} MB free")


def _database(settings: Settings) -> CheckLine:
    subject = "[database] url"
    shown = settings.masked()["database"]["url"]
    if settings.database_url.startswith("sqlite:///"):
        path = Path(settings.database_url.removeprefix("sqlite:///"))
        if not path.exists():
            return CheckLine(subject, Level.OK, f"{path} will be made when the agent starts")
    from sqlalchemy.exc import SQLAlchemyError

    from firstread.agent.store.engine import Store, StoreError
    from firstread.agent.store.migrate import newest_version, schema_version

    try:
        store = Store(settings.database_url, busy_timeout_s=5)
        try:
            current, newest = schema_version(store), newest_version()
        finally:
            store.close()
    except (StoreError, SQLAlchemyError, ImportError) as error:
        # Drivers repeat the URL in their words, password and all: the first line without it is enough.
        first = str(error).splitlines()[0].replace(settings.database_url, shown)
        return CheckLine(subject, Level.PROBLEM, f"{shown} cannot be used: {first}")
    if current == newest:
        return CheckLine(subject, Level.OK, f"{shown}, schema {current}")
    if current is None:
        return CheckLine(subject, Level.OK, f"{shown} is empty: tables are made when the agent starts")
    if not _known(current):
        return CheckLine(
            subject, Level.PROBLEM, f"schema {current} is of a newer release (this one knows {newest}): start that one"
        )
    return CheckLine(subject, Level.NOTE, f"schema {current} is upgraded to {newest} when the agent starts")


def _known(version: str) -> bool:
    from alembic.script import ScriptDirectory

    from firstread.agent.store import migrate

    folder = Path(migrate.__file__).parent / "migrations"
    return version in {script.revision for script in ScriptDirectory(str(folder)).walk_revisions()}


def _bundle(settings: Settings) -> CheckLine:
    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import load_bundle, verify_bundle
    from firstread.models.findings import LABELS

    subject, folder = "[analysis] bundle", bundle_folder(settings.analysis.bundle)
    problems = verify_bundle(folder)
    if problems:
        return CheckLine(subject, Level.PROBLEM, f"{folder}: {'; '.join(problems)}")
    bundle = load_bundle(folder)
    said = f"{bundle.name} {bundle.version}, weights {bundle.weights_sha256[:12]}"
    missing = [label for label in LABELS if label not in bundle.labels]
    if missing:
        return CheckLine(subject, Level.NOTE, f"{said}; it does not assess {', '.join(missing)}")
    return CheckLine(subject, Level.OK, said)


def _spellings(settings: Settings) -> CheckLine:
    from firstread.models.wording import EligibilityTableError, load_table

    subject, path = "[study] eligibility_file", settings.study.eligibility_file
    try:
        load_table(path)
    except EligibilityTableError as error:
        return CheckLine(subject, Level.PROBLEM, str(error))
    return CheckLine(
        subject, Level.OK, f"{path} is added to the known spellings" if path else "not set: the known spellings"
    )


def _port(subject: str, host: str, port: int, agent_runs: bool) -> CheckLine:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError:
        return CheckLine(subject, Level.PROBLEM, f"{port} needs root: take a port from 1024 upwards")
    except OSError as error:
        if agent_runs:
            return CheckLine(subject, Level.OK, f"{host}:{port} is in use, and an agent runs on this spool")
        return CheckLine(
            subject,
            Level.PROBLEM,
            f"{host}:{port} cannot be listened on ({error.strerror}): stop what uses it, or change it",
        )
    return CheckLine(subject, Level.OK, f"{host}:{port} is free")


def _served(files: TlsFiles) -> CheckLine:
    try:
        server_context(files)
    except TlsFilesError as error:
        return CheckLine(f"{files.section} TLS", Level.PROBLEM, str(error))
    callers = "any caller" if files.client_ca is None else f"callers with a certificate from {files.client_ca}"
    return CheckLine(f"{files.section} TLS", Level.OK, f"TLS 1.2 and 1.3 for {callers}")


def _certificate(name: str, path: Path) -> CheckLine:
    try:
        left = days_left(path)
    except TlsFilesError as error:
        return CheckLine(f"{name} certificate", Level.PROBLEM, str(error))
    if left < 0:
        return CheckLine(f"{name} certificate", Level.PROBLEM, f"{path} ran out {-left:.0f} days ago: renew it")
    level = Level.NOTE if left < SOON_DAYS else Level.OK
    return CheckLine(f"{name} certificate", level, f"{path} is good for {left:.0f} days")


def _question(settings: Settings, destination: Destination, agent_runs: bool) -> Callable[[], CheckLine]:
    def ask() -> CheckLine:
        held = " (on hold: nothing leaves until it is released)" if destination.hold else ""
        if destination.name == WORKLIST_DESTINATION and not agent_runs:
            return CheckLine(destination.name, Level.OK, "the built-in list starts with the agent")
        reached, text = _reach(settings, destination)
        return CheckLine(destination.name, Level.OK if reached else Level.PROBLEM, text + held)

    return ask


def _peer(settings: Settings, peer: PeerSettings) -> CheckLine:
    from firstread.integration.dicom.send import echo

    subject = f"[[peers]] {peer.ae_title}"
    try:
        echoed = echo(dicom_peer(settings, peer))
    except TlsFilesError as error:
        return CheckLine(subject, Level.PROBLEM, str(error))
    # Workstations are switched off at night: nothing of the agent's own work waits for one.
    return CheckLine(subject, Level.OK if echoed.ok else Level.NOTE, echoed.detail)


def _archive(settings: Settings) -> CheckLine:
    if settings.archive.type == "dimse":
        return _dimse_archive(settings)
    from firstread.integration.dicomweb.client import DicomwebClient
    from firstread.integration.dicomweb.search_client import probe

    try:
        client = DicomwebClient(web_service(settings.archive))
    except TlsFilesError as error:
        return CheckLine("[archive]", Level.PROBLEM, str(error))
    try:
        reached, text = probe(client)
    finally:
        client.close()
    # Films are received and read without it.
    return CheckLine("[archive]", Level.OK if reached else Level.NOTE, text)


def _dimse_archive(settings: Settings) -> CheckLine:
    from firstread.agent.archive_dimse import DimseArchive
    from firstread.integration.dicom.send import echo

    try:
        echoed = echo(archive_peer(settings))
        answers, text = echoed.ok, echoed.detail
        if answers:
            answers, text = DimseArchive(settings).probe()
    except TlsFilesError as error:
        return CheckLine("[archive]", Level.PROBLEM, str(error))
    return CheckLine("[archive]", Level.OK if answers else Level.NOTE, text)


def _reach(settings: Settings, destination: Destination) -> tuple[bool, str]:
    try:
        if isinstance(destination, DicomDestination):
            from firstread.integration.dicom.send import echo

            echoed = echo(dicom_peer(settings, destination))
            return echoed.ok, echoed.detail
        if isinstance(destination, DicomwebDestination):
            return _stores(destination)
        from firstread.integration.hl7.mllp import probe

        probed = probe(destination.host, destination.port, destination.connect_timeout_s, tls_context(destination))
        return probed.reachable, probed.text
    except TlsFilesError as error:
        return False, str(error)


def _stores(destination: DicomwebDestination) -> tuple[bool, str]:
    from firstread.integration.dicomweb.client import DicomwebClient
    from firstread.integration.dicomweb.store_client import probe

    client = DicomwebClient(web_service(destination))
    try:
        return probe(client)
    finally:
        client.close()


def problems(lines: Sequence[CheckLine]) -> list[CheckLine]:
    """Those of ``lines`` that keep the agent from working as it is set."""
    return [line for line in lines if not line.ok]
