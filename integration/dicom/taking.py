"""What receiver and C-GET requestor share about a C-STORE that comes in: its sink and its identity."""

from __future__ import annotations

from pydicom.dataset import Dataset

from firstread.integration.dicom.identity_check import checked_uids, is_uid
from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.received import ReceivedInstance, ReceiveSettings
from firstread.integration.dicom.services import Caller
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import CannotUnderstand, StoreFailure
from firstread.integration.dicom.streaming import StoreCommand


def sink_for(
    command: StoreCommand,
    transfer_syntax_uid: str | None,
    caller: Caller,
    settings: ReceiveSettings,
    refusal: StoreFailure | None = None,
) -> StoreSink:
    """Where a data set goes; what speaks against it already is said when it has come in (PS3.7 9.3.1.2).

    ``transfer_syntax_uid``: of its presentation context, None for one that was not accepted. ``refusal``: what else.
    """
    if transfer_syntax_uid is None:
        refusal = CannotUnderstand(f"presentation context {command.context_id} was not accepted")
    elif not is_uid(command.sop_class_uid):
        refusal = CannotUnderstand("Affected SOP Class UID is missing or malformed")
    elif not is_uid(command.sop_instance_uid):
        refusal = CannotUnderstand("Affected SOP Instance UID is missing or malformed")
    meta = b""
    if transfer_syntax_uid is not None and refusal is None:
        meta = meta_header(
            command.sop_class_uid,
            command.sop_instance_uid,
            transfer_syntax_uid,
            source_ae_title=caller.calling_ae_title,
            receiving_ae_title=caller.called_ae_title,
        )
    return StoreSink(
        settings.spool,
        meta,
        reserve_bytes=settings.disk_reserve_bytes,
        max_bytes=settings.max_film_bytes,
        refusal=refusal,
    )


def instance_of(
    command: StoreCommand, sink: StoreSink, header: Dataset, transfer_syntax_uid: str, caller: Caller
) -> ReceivedInstance:
    """The instance, its identity checked (PS3.4 B.2.3): raises :class:`StoreFailure`."""
    uids = checked_uids(header, sop_class_uid=command.sop_class_uid, sop_instance_uid=command.sop_instance_uid)
    return ReceivedInstance(
        path=sink.path,
        sop_class_uid=uids.sop_class_uid,
        sop_instance_uid=uids.sop_instance_uid,
        study_instance_uid=uids.study_instance_uid,
        series_instance_uid=uids.series_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        size_bytes=sink.size_bytes,
        sha256=sink.sha256,
        calling_ae_title=caller.calling_ae_title,
        called_ae_title=caller.called_ae_title,
        peer_address=caller.peer_address,
        association_id=caller.association_id,
        message_id=command.message_id,
        priority=command.priority,
        move_originator_ae_title=command.move_originator_ae_title,
        move_originator_message_id=command.move_originator_message_id,
        header=header,
    )
