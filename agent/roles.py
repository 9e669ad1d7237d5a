"""The roles of the agent, each a process of its own: receive, analyse, studies, deliver, web."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from firstread.agent import clock, logs
from firstread.agent.config import Settings
from firstread.agent.owner import owner_name
from firstread.agent.schedule import Schedule
from firstread.agent.store import watch
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.site import site_uid

if TYPE_CHECKING:
    from firstread.agent.tls import ServerTls

log = structlog.get_logger()

GRACE_S = 20.0

ANALYSE_NICE = 5
"""The network takes all cores when they are free. When they are not, receiving and sending, at the usual priority, get
three quarters of a core that both want (nice 5 weighs 335 against 1024, sched(7))."""

_LIBRARIES = {
    "receive": (
        "firstread.agent.intake",
        "firstread.agent.config_wire",
        "firstread.agent.dicom_services",
        "firstread.integration.dicom.receive",
    ),
    "web": ("firstread.agent.web.app", "firstread.agent.worklist.inbox", "firstread.integration.hl7.mllp_server"),
}

_NOT_FOR_RECEIVING = ("gdcm", "openjpeg", "pylibjpeg", "jpeg_ls", "PIL", "requests")
"""pydicom loads every decoder that is there, and the receiver never decodes: half its start and a quarter of its
memory would go into them. Without them pydicom says that they are not installed."""


def load_libraries(role: str) -> None:
    """Loads what the role works with, ahead of its work."""
    if role == "receive":
        for name in _NOT_FOR_RECEIVING:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    for name in _LIBRARIES.get(role, ()):
        importlib.import_module(name)


def run_role(role: str, settings: Settings, listening: socket.socket | None = None) -> None:
    """Does the role's work in this process until SIGTERM (or SIGINT, when nobody supervises)."""
    os.umask(0o077)
    logs.set_up(role)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if os.environ.get("FIRSTREAD_SUPERVISED"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: stop.set())
    _end_with_supervisor(stop)
    load_libraries(role)
    store = Store(settings.database_url)
    work: dict[str, Callable[[], None]] = {
        "receive": lambda: _receive(settings, store, stop, listening),
        "analyse": lambda: _analyse(settings, store, stop),
        "studies": lambda: _studies(settings, store, stop),
        "deliver": lambda: _deliver(settings, store, stop),
        "web": lambda: _web(settings, store, stop),
    }
    try:
        work[role]()
    finally:
        store.close()
    log.info("stopped")


def _end_with_supervisor(stop: threading.Event) -> None:
    """Ends a role whose supervisor is gone. The signal that the kernel sends then does not reach every role: not one
    that had not asked for it yet, nor surely one that was frozen at that moment."""
    supervisor = int(os.environ.get("FIRSTREAD_SUPERVISED") or 0)
    if not supervisor:
        return

    def look() -> None:
        while not stop.wait(1.0):
            if os.getppid() != supervisor:
                log.warning("the supervisor is gone; this role ends")
                stop.set()

    threading.Thread(target=look, name="supervisor-watch", daemon=True).start()


def _wait_for(stop: threading.Event) -> None:
    """Wakes every second: Python sees a signal that another thread took only when the main thread runs."""
    while not stop.wait(1.0):
        pass


class _Beat:
    """Tells the database that this role lives, and what it wants to be known."""

    def __init__(self, role: str, settings: Settings, store: Store) -> None:
        self._role = role
        self._store = store
        self.owner = owner_name(settings, role, os.getpid())
        self.status: Callable[[], dict[str, Any]] = dict

    def __call__(self) -> None:
        try:
            with self._store.write() as connection:
                watch.beat(connection, self._role, self.owner, self.status(), clock.now())
        except StoreError as error:
            log.warning("no beat", error=str(error))


def _receive(settings: Settings, store: Store, stop: threading.Event, listening: socket.socket | None) -> None:
    from firstread.agent.admission import Admission
    from firstread.agent.config_wire import receive_settings, served_tls
    from firstread.agent.dicom_services import dicom_services
    from firstread.agent.intake import Intake
    from firstread.agent.tls import ServerTls
    from firstread.integration.dicom.receive import Receiver

    beat = _Beat("receive", settings, store)
    intake = Intake(settings, store, site_uid(store))
    dicom = settings.dicom
    served = served_tls(settings)
    tls = ServerTls(served["dicom"]) if "dicom" in served else None
    receiver = Receiver(
        receive_settings(settings, tls.context if tls else None),
        intake.take,
        intake.note_refusal,
        intake.note_association,
        listening_socket=listening,
        services=dicom_services(settings, store, beat.owner),
    )
    receiver.start()
    admission = Admission(settings, store, receiver.refuse_new)
    beat.status = lambda: {
        "listening": True,
        "port": dicom.port,
        "associations": receiver.active_associations,
        "refusing": admission.closed_because or "",
    }
    beat()
    log.info("receiving", ae_title=dicom.ae_title, port=dicom.port)
    schedule = Schedule("receive", {"beat": beat, "admission": admission.look, "certificates": _renewing(tls)})
    schedule.start()
    _wait_for(stop)
    receiver.stop(GRACE_S)
    schedule.stop()


def _analyse(settings: Settings, store: Store, stop: threading.Event) -> None:
    os.nice(ANALYSE_NICE)  # before any thread or process of ours, which all inherit it

    from firstread.agent.analyse import Analyser
    from firstread.agent.models_at_hand import ModelsAtHand

    beat = _Beat("analyse", settings, store)

    def raise_alarm(key: str, text: str, remedy: str) -> None:
        with store.write() as connection:
            watch.raise_alarm(
                connection, key, severity="critical", text=text, remedy=remedy, actor=beat.owner, now=clock.now()
            )

    def clear_alarm(key: str) -> None:
        with store.write() as connection:
            watch.clear_alarm(connection, key, actor=beat.owner, now=clock.now())

    models = ModelsAtHand(
        settings.analysis.bundle,
        settings.analysis.device,
        cache=settings.spool / "engines",
        threads=settings.analysis.threads or None,
        raise_alarm=raise_alarm,
        clear_alarm=clear_alarm,
    )
    analyser = Analyser(settings, store, models, beat.owner)
    figures = analyser.figures
    beat.status = lambda: {
        "engine": figures.engine,
        "films": figures.films,
        "batches": figures.batches,
        "last_batch": figures.last_batch,
        "in_flight": figures.in_flight,
        "batch_sizes": {str(size): count for size, count in figures.batch_sizes.items()},
    }
    beat()
    schedule = Schedule("analyse", {"beat": beat, "canary": models.check_soon})
    schedule.start()
    analyser.run(stop)
    schedule.stop()


def _studies(settings: Settings, store: Store, stop: threading.Event) -> None:
    from firstread.agent.care import Care
    from firstread.agent.holdings import Holdings
    from firstread.agent.objects import ResultObjects
    from firstread.agent.studies import SummingUp
    from firstread.integration.dicom.report import warm

    beat = _Beat("studies", settings, store)
    beat()
    warm()
    summing_up = SummingUp(settings, store, ResultObjects(settings, store, site_uid(store)))
    care = Care(settings, store)
    care.make_missing_items()
    schedule = Schedule(
        "studies",
        {
            "beat": beat,
            "close studies": summing_up.run_once,
            "free leases": care.free_leases,
            "watch": care.watch,
            "retention": care.retention,
            "spool check": care.check_spool,
            "upkeep": care.upkeep,
            "older objects": Holdings(settings, store, site_uid(store)).enter_older,
        },
    )
    schedule.start()
    _wait_for(stop)
    schedule.stop()


def _deliver(settings: Settings, store: Store, stop: threading.Event) -> None:
    from firstread.agent.audit import AuditSender
    from firstread.agent.commitment import CommitmentReporter
    from firstread.agent.deliver import Deliverer
    from firstread.agent.notices import Notifier
    from firstread.agent.ups_reporter import UpsReporter

    beat = _Beat("deliver", settings, store)
    deliverer = Deliverer(settings, store, beat.owner)
    beat.status = lambda: {"destinations": [one.name for one in settings.all_destinations]}
    beat()
    deliverer.start(stop)
    committing = CommitmentReporter(settings, store, beat.owner)
    reporting = threading.Thread(target=committing.run, args=(stop,), name="commitment", daemon=True)
    reporting.start()
    reporter = UpsReporter(settings, store)
    reporter.start(stop)
    auditing = None
    if settings.audit.wanted:
        auditing = threading.Thread(target=AuditSender(settings, store).run, args=(stop,), name="audit", daemon=True)
        auditing.start()
    notifier = Notifier(settings, store)
    schedule = Schedule(
        "deliver",
        {
            "beat": beat,
            "notices by e-mail": notifier.tell_by_email,
            "notices by webhook": notifier.tell_by_webhook,
        },
    )
    schedule.start()
    _wait_for(stop)
    schedule.stop()
    deliverer.join(GRACE_S)
    reporting.join(GRACE_S)
    reporter.join()
    if auditing is not None:
        auditing.join(GRACE_S)


def _web(settings: Settings, store: Store, stop: threading.Event) -> None:
    from firstread.agent.config_wire import served_tls
    from firstread.agent.tls import ServerTls
    from firstread.agent.web.app import serve
    from firstread.agent.worklist.inbox import Inbox
    from firstread.integration.hl7.mllp_server import MllpServer

    beat = _Beat("web", settings, store)
    beat()
    tls = {name: ServerTls(files) for name, files in served_tls(settings).items() if name != "dicom"}
    schedule = Schedule("web", {"beat": beat, "certificates": _renewing(*tls.values())})
    schedule.start()
    servers: list[MllpServer] = []
    lists = settings.worklist
    if lists.enabled:
        inbox = Inbox(store)
        servers.append(MllpServer(lists.mllp_host, lists.mllp_port, inbox))
        if lists.mllp_tls_port is not None:
            secured = tls["worklist"].context
            servers.append(MllpServer(lists.mllp_tls_host, lists.mllp_tls_port, inbox, tls=secured))
        for server in servers:
            server.start()
    try:
        serve(settings, store, stop, tls=tls["web"].context if "web" in tls else None)
    finally:
        for server in servers:
            server.stop()
        schedule.stop()


def _renewing(*served: ServerTls | None) -> Callable[[], None]:
    """Takes up renewed certificates of what is served."""

    def renew() -> None:
        for one in served:
            if one is not None:
                one.renew()

    return renew
