"""Query, retrieval and commitment on the wire: what a hostile or careless peer sends is answered, nothing breaks."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from firstread.integration.dicom.commitment import (
    BadCommitment,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    read_report,
    read_request,
    write_report,
    write_request,
)
from firstread.integration.dicom.contexts import STORAGE_COMMITMENT, STUDY_ROOT_FIND, STUDY_ROOT_GET
from firstread.integration.dicom.query import BadIdentifier, QueryLevel, QueryService, read_identifier, write_match
from firstread.integration.dicom.services import CommitmentService, Services
from tests.integration.dicom_wire import BIG_ENDIAN, CR, EXPLICIT, IMPLICIT, Film, RawPeer, receiving, uid_value

SYNTAXES = [EXPLICIT, IMPLICIT, BIG_ENDIAN]
DATA_SET, NO_DATA_SET = b"\x01\x00", b"\x01\x01"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[RawPeer]:
    """A peer of a receiver that serves everything and knows nothing."""
    query = QueryService(
        serves=lambda _: True,
        knows=lambda *_: True,
        find=lambda *_: iter(()),
        retrieve=lambda *_: [],
        peer=lambda _: None,
        decompress=lambda path, _: path,
    )
    commitment = CommitmentService(lambda *_: None, lambda _: None, lambda *_: None, lambda *_: None)
    with receiving(tmp_path) as (receiver, _):
        receiver.services = Services(commitment, query)
        with RawPeer(receiver.address) as peer:
            contexts = [(one, [EXPLICIT]) for one in (STUDY_ROOT_FIND, STUDY_ROOT_GET, STORAGE_COMMITMENT, CR)]
            kind, answer = peer.associate(contexts)
            assert kind == 2 and len(peer.accepted(answer)) == 4
            yield peer


def test_a_service_is_offered_to_those_it_is_for(tmp_path: Path) -> None:
    service = "1.2.840.10008.5.1.4.34.6.5"
    with receiving(tmp_path) as (receiver, _):
        receiver.services = Services(handlers={service: lambda *_: None}, served=lambda title: title == "NAMED")
        for calling, wanted in (("NAMED", 2), ("STRANGER", 1)):
            with RawPeer(receiver.address) as peer:
                kind, answer = peer.associate([(service, [EXPLICIT]), (CR, [EXPLICIT])], calling=calling)
                assert kind == 2 and len(peer.accepted(answer)) == wanted


def find(peer: RawPeer, identifier: bytes, *, context_id: int = 1, data_set: bytes = DATA_SET) -> tuple[int, str]:
    peer.send_command(
        {
            0x0002: uid_value(STUDY_ROOT_FIND),
            0x0100: b"\x20\x00",
            0x0110: b"\x01\x00",
            0x0700: b"\x00\x00",
            0x0800: data_set,
        },
        context_id=context_id,
    )
    if data_set == DATA_SET:
        peer.send_fragment(identifier, 0x02, context_id=context_id)
    return peer.read_response()


def action(peer: RawPeer, information: bytes) -> tuple[int, str]:
    peer.send_command(
        {
            0x0003: uid_value(STORAGE_COMMITMENT), 0x0100: b"\x30\x01", 0x0110: b"\x01\x00", 0x0800: DATA_SET,
            0x1001: uid_value("1.2.840.10008.1.20.1.1"), 0x1008: b"\x01\x00",
        },
        context_id=5,
    )  # fmt: skip
    peer.send_fragment(information, 0x02, context_id=5)
    return peer.read_response()


GARBAGE = [b"", b"\x00", b"\xff" * 64, b"\x08\x00\x52\x00CS\xff\xff", b"\x08\x00\x99\x11SQ\x00\x00\xff\xff\xff\xff" * 8]


@pytest.mark.parametrize("content", GARBAGE)
def test_an_identifier_that_is_garbage_is_answered_a900_and_the_association_goes_on(
    served: RawPeer, content: bytes
) -> None:
    assert find(served, content)[0] == 0xA900
    assert served.store(Film(), context_id=7)[0] == 0x0000


def test_a_query_without_an_identifier_is_answered_a900(served: RawPeer) -> None:
    assert find(served, b"", data_set=NO_DATA_SET)[0] == 0xA900


@pytest.mark.parametrize("content", GARBAGE)
def test_a_commitment_request_that_is_garbage_is_answered_0115_and_the_association_goes_on(
    served: RawPeer, content: bytes
) -> None:
    assert action(served, content)[0] == 0x0115
    assert served.store(Film(), context_id=7)[0] == 0x0000


def test_an_identifier_without_end_costs_no_memory(served: RawPeer) -> None:
    served.send_command(
        {
            0x0002: uid_value(STUDY_ROOT_FIND),
            0x0100: b"\x20\x00",
            0x0110: b"\x01\x00",
            0x0700: b"\x00\x00",
            0x0800: DATA_SET,
        }
    )
    with contextlib.suppress(OSError):
        for _ in range(1000):
            served.send_fragment(bytes(16000), 0x00)
    assert served.read_pdu()[0] in (0, 0x07), "aborted, long before all of it was read"


def test_a_query_in_the_context_of_another_service_ends_the_association(served: RawPeer) -> None:
    assert find(served, b"", context_id=3)[0] == -1


def test_services_that_nobody_gave_are_not_offered(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _), RawPeer(receiver.address) as peer:
        _, answer = peer.associate([(STUDY_ROOT_FIND, [EXPLICIT]), (STORAGE_COMMITMENT, [EXPLICIT]), (CR, [EXPLICIT])])
        assert list(peer.accepted(answer)) == [5]


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
@hypothesis_settings(max_examples=80)
def test_no_bytes_lead_to_anything_but_a_refusal(content: bytes, syntax: str) -> None:
    for read, refusal in (
        (read_request, BadCommitment),
        (read_report, BadCommitment),
        (read_identifier, BadIdentifier),
    ):
        with contextlib.suppress(refusal):
            read(io.BytesIO(content), syntax)


uids = st.from_regex(r"1(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
references = st.builds(Reference, uids, uids)


failures = st.lists(st.tuples(references, st.integers(1, 0xFFFF)), max_size=3)


@given(uids, st.lists(references, min_size=1, max_size=5), failures, st.sampled_from(SYNTAXES))
@hypothesis_settings(max_examples=50)
def test_requests_and_reports_are_read_as_they_were_written(transaction, kept, failed, syntax) -> None:
    request = CommitmentRequest(transaction, tuple(kept))
    assert read_request(write_request(request, syntax), syntax) == request
    report = CommitmentReport(transaction, tuple(kept), tuple(failed))
    assert read_report(write_report(report, syntax), syntax) == report
    assert report.event_type == (2 if failed else 1)


def test_a_match_says_what_was_received_even_where_its_vr_forbids_that() -> None:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientBirthDate = asked.AccessionNumber = asked.StudyInstanceUID = asked.NumberOfStudyRelatedSeries = ""
    request = read_identifier(io.BytesIO(encode(asked, False, True) or b""), EXPLICIT)
    assert request.level is QueryLevel.STUDY and request.match == {}
    values = {"PatientBirthDate": "0f3a" * 8, "AccessionNumber": "9" * 56, "NumberOfStudyRelatedSeries": "many"}
    written = write_match(request, {**values, "StudyInstanceUID": "1.2.3"}, "FIRSTREAD", EXPLICIT).getvalue()
    assert b"0f3a" * 8 in written and b"9" * 56 in written and b"many" not in written
    tag = struct.pack("<HH", 0x0020, 0x1206)
    assert tag + b"IS\x00\x00" in written


def test_a_name_is_asked_for_in_the_character_set_that_the_identifier_names() -> None:
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 100"
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientName = "MÜLLER*"
    encoded = encode(asked, True, True) or b""
    assert "MÜLLER*".encode("latin-1") in encoded
    assert read_identifier(io.BytesIO(encoded), IMPLICIT).match == {"PatientName": "MÜLLER*"}
