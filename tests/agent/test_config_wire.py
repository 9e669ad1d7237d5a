"""What the site says reaches the wire rooms: receiver, messages, TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from firstread.agent.config import DicomDestination, Hl7Destination, Settings, load_settings
from firstread.agent.config_wire import hl7_mapping, judgements, receive_settings, tls_context
from firstread.integration.dicom.received import ReceiveSettings
from firstread.integration.hl7.acknowledge import AckKind
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.prediction import Priority

RIS = Hl7Destination(name="RIS", type="hl7", host="ris", port=2575)


def test_defaults_are_those_of_the_wire_rooms() -> None:
    settings = Settings()
    received = receive_settings(settings)
    assert received == ReceiveSettings("FIRSTREAD", "0.0.0.0", 11112, settings.spool / "incoming")
    mapping = hl7_mapping(settings, RIS)
    assert mapping == Hl7Mapping()


def test_what_a_site_sets_stands_in_its_messages(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        '[site]\nname = "General"\nassigning_authority = "GEN"\nuse_test_processing_id = true\n'
        '[[destinations]]\nname = "RIS"\ntype = "hl7"\nhost = "ris"\nport = 2575\npriority_place = ["ZFR-1", "OBX-8"]\n'
        'result_status = "P"\nevery_accession = false\non_ack = {AE = "retry", 204 = "reject"}\n'
        'priority_values = {STAT = "1", URGENT = "2"}\nreceiving_facility = "RAD"\n'
    )
    settings = load_settings(path, {})
    (ris,) = settings.destinations
    assert isinstance(ris, Hl7Destination)
    mapping = hl7_mapping(settings, ris)
    assert (mapping.sending_facility, mapping.receiving_facility, mapping.processing_id) == ("General", "RAD", "T")
    assert (mapping.priority_place, mapping.result_status) == (("ZFR-1", "OBX-8"), "P")
    assert mapping.priority_values == {Priority.STAT: "1", Priority.URGENT: "2"}
    assert (mapping.assigning_authority, mapping.every_accession) == ("GEN", False)
    assert judgements(ris) == {"AE": AckKind.RETRY, "204": AckKind.REJECTED}


def test_connection_is_encrypted_and_verified_only_where_the_site_says_so() -> None:
    pacs = DicomDestination(name="PACS", type="dicom", host="pacs", port=104, ae_title="PACS")
    assert tls_context(pacs) is None
    context = tls_context(pacs.model_copy(update={"tls": True}))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
