"""From the site's settings to what the wire rooms take: the receiver's limits, a PACS, a RIS's conventions, TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from firstread.agent.config import (
    Destination,
    DicomDestination,
    DicomwebDestination,
    Hl7Destination,
    PeerSettings,
    Settings,
    SubscriberSettings,
)
from firstread.agent.config_webservice import ArchiveSettings, WebServiceSection
from firstread.agent.spool import INCOMING
from firstread.agent.tls import TlsFiles, client_context
from firstread.integration.hl7.acknowledge import AckKind
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.prediction import Priority

if TYPE_CHECKING:
    from firstread.integration.dicom.received import ReceiveSettings
    from firstread.integration.dicom.send import DicomPeer
    from firstread.integration.dicomweb.client import WebService
    from firstread.integration.dicomweb.tokens import Tokens


def dicom_peer(settings: Settings, one: DicomDestination | PeerSettings) -> DicomPeer:
    """A PACS or another node as the sender knows it. Raises TlsFilesError."""
    from firstread.integration.dicom.send import DicomPeer

    name, ours = (one.name, one.calling_ae_title) if isinstance(one, DicomDestination) else (one.ae_title, None)
    return DicomPeer(
        name=name,
        host=one.host,
        port=one.port,
        ae_title=one.ae_title,
        calling_ae_title=ours or settings.dicom.ae_title,
        connect_timeout_s=one.connect_timeout_s,
        acse_timeout_s=one.acse_timeout_s,
        dimse_timeout_s=one.dimse_timeout_s,
        tls=tls_context(one),
    )


def archive_peer(settings: Settings) -> DicomPeer:
    """The archive as a DICOM node. Raises TlsFilesError."""
    from firstread.integration.dicom.send import DicomPeer

    one = settings.archive
    return DicomPeer(
        name="archive",
        host=one.host or "",
        port=one.port or 0,
        ae_title=one.ae_title or "",
        calling_ae_title=one.calling_ae_title or settings.dicom.ae_title,
        connect_timeout_s=one.connect_timeout_s,
        acse_timeout_s=one.acse_timeout_s,
        dimse_timeout_s=one.dimse_timeout_s,
        tls=tls_context(one),
    )


def web_service(destination: DicomwebDestination | ArchiveSettings) -> WebService:
    """A DICOMweb service as the client knows it. Raises TlsFilesError."""
    from firstread.integration.dicomweb.client import WebService

    return WebService(
        name="archive" if isinstance(destination, ArchiveSettings) else destination.name,
        url=destination.url,
        connect_timeout_s=destination.connect_timeout_s,
        answer_timeout_s=destination.answer_timeout_s,
        tls=tls_context(destination),
        tokens=_tokens(destination),
    )


def _tokens(service: WebServiceSection) -> Tokens | None:
    from firstread.integration.dicomweb.tokens import ClientCredentials, GivenToken

    token = service.token_file or (service.token.get_secret_value() if service.token else None)
    if token is not None:
        return GivenToken(token)
    secret = service.oauth2_client_secret_file
    given = service.oauth2_client_secret.get_secret_value() if service.oauth2_client_secret else ""
    if service.oauth2_token_url is None or service.oauth2_client_id is None:
        return None
    return ClientCredentials(service.oauth2_token_url, service.oauth2_client_id, secret or given, service.oauth2_scope)


def subscriber_peer(settings: Settings, subscriber: SubscriberSettings) -> DicomPeer:
    """A workstation as event reports find it. Raises TlsFilesError."""
    from firstread.integration.dicom.requestor import DicomPeer

    tls = None
    if subscriber.tls:
        tls = client_context(
            f"[[subscribers]] {subscriber.ae_title}",
            subscriber.tls_ca_file,
            subscriber.tls_certificate_file,
            subscriber.tls_key_file,
        )
    return DicomPeer(
        name=subscriber.ae_title,
        host=subscriber.host,
        port=subscriber.port,
        ae_title=subscriber.ae_title,
        calling_ae_title=settings.dicom.ae_title,
        tls=tls,
    )


def hl7_mapping(settings: Settings, destination: Hl7Destination) -> Hl7Mapping:
    """The conventions of one receiver, with the site's where it has none of its own."""
    site = settings.site
    values, flags = destination.priority_values, destination.abnormal_flags
    return Hl7Mapping(
        sending_application=destination.sending_application,
        sending_facility=destination.sending_facility or site.name,
        receiving_application=destination.receiving_application or "",
        receiving_facility=destination.receiving_facility or "",
        processing_id=destination.processing_id or ("T" if site.use_test_processing_id else "P"),
        priority_place=destination.priority_place,
        priority_values={Priority.STAT: values.STAT, Priority.URGENT: values.URGENT},
        abnormal_flags={Priority.STAT: flags.STAT, Priority.URGENT: flags.URGENT},
        result_status=destination.result_status,
        obr_25=destination.result_status,
        assigning_authority=destination.assigning_authority or site.assigning_authority,
        patient_id_type=destination.patient_id_type,
        accession_place=destination.accession_place,
        every_accession=destination.every_accession,
        character_set=destination.character_set,
    )


_ACK_KINDS: Mapping[str, AckKind] = {
    "retry": AckKind.RETRY,
    "reject": AckKind.REJECTED,
    "reject_after_tries": AckKind.REJECT_AFTER_TRIES,
}


def judgements(destination: Hl7Destination) -> dict[str, AckKind]:
    """The receiver's own meanings of acknowledgement codes, asked before the usual ones."""
    return {code: _ACK_KINDS[rule] for code, rule in destination.on_ack.items()}


def web_receive_settings(settings: Settings) -> ReceiveSettings:
    """How instances come in over HTTP: as over DICOM, with DICOMweb's own limit of one instance."""
    return replace(receive_settings(settings), max_film_bytes=settings.dicomweb.max_instance_mb << 20)


def receive_settings(settings: Settings, tls: ssl.SSLContext | None = None) -> ReceiveSettings:
    """How the receiver listens; films come in below the spool, so that they move by rename."""
    from firstread.integration.dicom.received import ReceiveSettings

    dicom = settings.dicom
    return ReceiveSettings(
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        spool=settings.spool / INCOMING,
        allowed_calling_ae=dicom.allowed_calling_ae,
        allowed_addresses=dicom.allowed_addresses,
        check_called_ae=dicom.check_called_ae,
        maximum_associations=dicom.maximum_associations,
        maximum_per_calling_ae=dicom.maximum_per_calling_ae,
        maximum_pdu_length=dicom.maximum_pdu_length,
        acse_timeout_s=dicom.acse_timeout_s,
        dimse_timeout_s=dicom.dimse_timeout_s,
        network_idle_timeout_s=dicom.network_idle_timeout_s,
        pdu_deadline_s=dicom.pdu_deadline_s,
        disk_reserve_bytes=settings.storage.reserve_mb << 20,
        tls=tls,
    )


def tls_context(destination: Destination | PeerSettings | ArchiveSettings) -> ssl.SSLContext | None:
    """Client TLS 1.2 or 1.3 with checked names, None when the other side is plain. Raises TlsFilesError."""
    encrypted = destination.encrypted if isinstance(destination, ArchiveSettings) else destination.tls
    if not encrypted:
        return None
    if isinstance(destination, ArchiveSettings):
        place = "[archive]"
    elif isinstance(destination, PeerSettings):
        place = f"[[peers]] {destination.ae_title}"
    else:
        place = f"[[destinations]] {destination.name}"
    return client_context(
        place,
        destination.tls_ca_file,
        destination.tls_certificate_file,
        destination.tls_key_file,
    )


def served_tls(settings: Settings) -> dict[str, TlsFiles]:
    """What is served with TLS, by section: ``dicom``, ``web``, ``worklist``."""
    sections = {"dicom": settings.dicom, "web": settings.web, "worklist": settings.worklist}
    return {
        name: TlsFiles(f"[{name}]", one.tls_certificate_file, one.tls_key_file, one.tls_client_ca_file)
        for name, one in sections.items()
        if one.tls_certificate_file is not None and one.tls_key_file is not None
    }


def certificates(settings: Settings) -> dict[str, Path]:
    """Every certificate of ours that can run out, by the setting that names it."""
    ours = {files.section: files.certificate for files in served_tls(settings).values()}
    for destination in settings.destinations:
        if destination.tls and destination.tls_certificate_file is not None:
            ours[f"[[destinations]] {destination.name}"] = destination.tls_certificate_file
    if settings.archive.tls_certificate_file is not None:
        ours["[archive]"] = settings.archive.tls_certificate_file
    for peer in settings.peers:
        if peer.tls_certificate_file is not None:
            ours[f"[[peers]] {peer.ae_title}"] = peer.tls_certificate_file
    for subscriber in settings.subscribers:
        if subscriber.tls and subscriber.tls_certificate_file is not None:
            ours[f"[[subscribers]] {subscriber.ae_title}"] = subscriber.tls_certificate_file
    if settings.audit.host is not None and settings.audit.tls_certificate_file is not None:
        ours["[audit]"] = settings.audit.tls_certificate_file
    return ours
