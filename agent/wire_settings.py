"""From the site's settings to what receiver and senders take: limits of the receiver, TLS of a destination."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from firstread.agent.config import Destination, Settings
from firstread.agent.spool import INCOMING

if TYPE_CHECKING:
    from firstread.integration.dicom.received import ReceiveSettings


def receive_settings(settings: Settings) -> ReceiveSettings:
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
    )


def tls_context(destination: Destination) -> ssl.SSLContext | None:
    """Client TLS 1.2 or 1.3 with checked names, None when the destination is plain."""
    if not destination.tls:
        return None
    context = ssl.create_default_context(cafile=destination.tls_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if destination.tls_certificate_file is not None and destination.tls_key_file is not None:
        context.load_cert_chain(destination.tls_certificate_file, destination.tls_key_file)
    return context
