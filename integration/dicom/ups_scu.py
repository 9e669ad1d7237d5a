"""Event reports to a subscriber: N-EVENT-REPORT on an association that we ask for (PS3.4 CC.2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_role
from pynetdicom.ae import ApplicationEntity

from firstread.integration.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from firstread.integration.dicom.requestor import DicomPeer
from firstread.integration.dicom.ups import EVENT, PUSH, UpsEvent
from firstread.integration.dicom.ups_rules import read_json


class NotTold(Exception):
    """A subscriber was not reached or gave no answer; the message says why."""


def report(peer: DicomPeer, events: Sequence[UpsEvent]) -> Iterator[UpsEvent]:
    """Reports events in their order and answers with each that the subscriber has heard.

    A subscriber's failure status is its answer: it heard, and may not want it. Raises NotTold for the first event that
    it did not answer.
    """
    entity = ApplicationEntity(peer.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout, entity.connection_timeout = peer.acse_timeout_s, peer.connect_timeout_s
    entity.dimse_timeout = peer.dimse_timeout_s
    entity.add_requested_context(EVENT)
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    secured: Any = (peer.tls, peer.host) if peer.tls is not None else None
    association = entity.associate(
        peer.host, peer.port, ae_title=peer.ae_title, ext_neg=[build_role(EVENT, scp_role=True)], tls_args=secured
    )
    if not association.is_established:
        raise NotTold(f"no association with {where} that takes UPS events: check host, port, AE title and its settings")
    try:
        for event in events:
            information = read_json(event.information)
            if not association.is_established:
                raise NotTold(f"{where} ended the association")
            status, _ = association.send_n_event_report(
                information, int(event.type), PUSH, event.sop_instance_uid, event.id % 65535 + 1, meta_uid=EVENT
            )
            if not isinstance(status, Dataset) or "Status" not in status:
                raise NotTold(f"{where} did not answer")
            yield event
    finally:
        if association.is_established:
            association.release()
        else:
            association.abort()
