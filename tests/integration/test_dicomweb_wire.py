"""DICOMweb on the wire: bodies in any pieces, media types, queries, and XML that says what JSON says."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.errors import BadRequest
from firstread.integration.dicomweb.multipart import MultipartReader, written
from firstread.integration.dicomweb.native_xml import from_xml, to_xml
from firstread.integration.dicomweb.query import search_query


class Kept:
    """Parts as they came."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, str], bytes]] = []

    def open_part(self, headers):
        self.parts.append((dict(headers), b""))
        return self

    def write(self, content: bytes) -> None:
        headers, before = self.parts[-1]
        self.parts[-1] = headers, before + content

    def end(self) -> None:
        pass


def read(body: bytes, sizes: list[int]) -> list[tuple[dict[str, str], bytes]]:
    kept = Kept()
    reader = MultipartReader("bound", kept.open_part)
    at = 0
    for size in [*sizes, len(body)]:
        reader.feed(body[at : at + size])
        at += size
    reader.close()
    return kept.parts


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n--boun", b"--bound", b"\r\n", b"-"])), min_size=1
    ),
    st.lists(st.integers(1, 40), max_size=30),
)
def test_parts_come_out_as_they_went_in_whatever_pieces_the_body_comes_in(contents, sizes):
    contents = [content for content in contents if b"\r\n--bound" not in b"\r\n" + content] or [b"x"]
    body = b"".join(written("bound", (({"Content-Type": "a/b"}, (content,)) for content in contents)))
    assert read(body, sizes) == [({"content-type": "a/b"}, content) for content in contents]


@pytest.mark.parametrize("body", [b"", b"--bound", b"--bound\r\n\r\nx", b"--other\r\n\r\nx\r\n--other--", b"x" * 99])
def test_what_is_no_multipart_with_this_boundary_is_refused(body):
    with pytest.raises(BadRequest):
        read(body, [])


@given(st.binary(max_size=300))
def test_random_bodies_are_refused_or_read_and_nothing_else(body):
    with contextlib.suppress(BadRequest):
        read(body, [7])


def test_the_best_type_that_can_be_given_is_chosen():
    types = media.accepted('image/png;q=0.5, multipart/related; type="image/jpeg"; q=0.9, text/html', [])
    assert media.choose(types, ("image/png", "image/jpeg"))[1] == "image/jpeg"
    assert media.choose(media.accepted(None, []), ("image/png",))[1] == "image/png"
    assert media.choose(media.accepted("image/*", []), ("image/png",))[1] == "image/png"
    assert media.choose(media.accepted("image/png;q=0", []), ("image/png",)) is None
    assert media.choose(media.accepted("text/html", []), ("image/png",)) is None
    assert media.accepted("text/html", ["image/png"])[0].name == "image/png", "the query comes before the header"
    for senseless in ("x", "a/b;q=2", "a/b;q=x", ",".join(["a/b"] * 99)):
        with pytest.raises(BadRequest):
            media.accepted(senseless, [])


def test_xml_says_what_json_says():
    one = Dataset()
    one.PatientName, one.Rows, one.WindowCenter = "Müller^Jörg=山田^太郎", 3, [1.5, 2]
    one.OtherPatientIDs = ["a", "b"]
    item = Dataset()
    item.CodeValue = "<&>"
    one.ConceptNameCodeSequence = [item]
    one.add_new(0x00091001, "OB", b"\0\1")
    model = one.to_json_dict() | {"7FE00010": {"vr": "OW", "BulkDataURI": "a/b"}}
    assert from_xml(to_xml(model)) == [model]


@pytest.mark.parametrize(
    "document",
    [b"", b"<a", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><NativeDicomModel/>',
     b'<NativeDicomModel><DicomAttribute tag="1" vr="US"/></NativeDicomModel>',
     b'<NativeDicomModel><DicomAttribute tag="00280010" vr="US"><Value>x</Value></DicomAttribute></NativeDicomModel>'],
)  # fmt: skip
def test_xml_without_sense_is_refused(document):
    with pytest.raises(BadRequest):
        from_xml(document)


def test_attributes_are_named_by_keyword_or_tag_and_lists_of_uids_by_commas():
    asked = search_query([("00100020", "a,b"), ("StudyInstanceUID", "1.2,1.3"), ("00400275.00400009", "x")])
    assert dict(asked.match) == {
        "PatientID": "a,b", "StudyInstanceUID": "1.2\\1.3", "RequestAttributesSequence.ScheduledProcedureStepID": "x"
    }  # fmt: skip
