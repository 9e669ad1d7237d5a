"""From the site's settings to what the wire rooms take: a PACS as the sender knows it, a RIS's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from firstread.agent.config import DicomDestination, Hl7Destination, Settings
from firstread.agent.wire_settings import tls_context
from firstread.integration.hl7.acknowledge import AckKind
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.prediction import Priority

if TYPE_CHECKING:
    from firstread.integration.dicom.send import DicomPeer


def dicom_peer(settings: Settings, destination: DicomDestination) -> DicomPeer:
    """A PACS as the sender knows it. Raises OSError for TLS files that cannot be read."""
    from firstread.integration.dicom.send import DicomPeer

    return DicomPeer(
        name=destination.name,
        host=destination.host,
        port=destination.port,
        ae_title=destination.ae_title,
        calling_ae_title=destination.calling_ae_title or settings.dicom.ae_title,
        connect_timeout_s=destination.connect_timeout_s,
        acse_timeout_s=destination.acse_timeout_s,
        dimse_timeout_s=destination.dimse_timeout_s,
        tls=tls_context(destination),
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
