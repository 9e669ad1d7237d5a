"""QIDO-RS and WADO-RS: what is held is found, and handed out as it lies, without a loss otherwise, and as a picture."""

from __future__ import annotations

import io
import json
from email.parser import BytesParser

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, RLELossless
from starlette.testclient import TestClient

from firstread.agent.web.app import create_app
from tests.agent.builders import GSPS, Bench, chest_film
from tests.stow import DICOM_PARTS, body, part10

HERE = "http://127.0.0.1:8080"
FILM = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
COLOUR = "/dicom-web/studies/1.2.3/series/1.2.3.2/instances/1.2.3.2.1"
PACKED = "/dicom-web/studies/1.2.3/series/1.2.3.3/instances/1.2.3.3.1"
STATE = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1"


def film(series, sop, **attributes):
    one = chest_film()
    one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", series
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = sop
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return one


def coloured():
    one = film("1.2.3.2", "1.2.3.2.1", SamplesPerPixel=3, PhotometricInterpretation="RGB", BitsAllocated=8,
               BitsStored=8, HighBit=7, PlanarConfiguration=0, NumberOfFrames=2, Rows=20, Columns=30)  # fmt: skip
    one.PixelData = bytes([255, 0, 0]) * 600 + bytes([0, 0, 255]) * 600
    return one


def presentation_state():
    one = film("1.2.3.4", "1.2.3.4.1", Modality="PR")
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = GSPS
    del one.PixelData, one.Rows, one.Columns
    return one


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("held") / "spool")
    packed = film("1.2.3.3", "1.2.3.3.1")
    packed.compress(JPEGLSLossless, generate_instance_uid=False)
    held = (film("1.2.3.1", "1.2.3.1.1"), coloured(), packed, presentation_state())
    with TestClient(create_app(bench.settings, bench.store), base_url=HERE) as made:
        content = body(*(part10(one) for one in held))
        assert (
            made.post("/dicom-web/studies", content=content, headers={"content-type": DICOM_PARTS}).status_code == 200
        )
        yield made
    bench.store.close()


def parts(answer):
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    return BytesParser().parsebytes(head + answer.content).get_payload()


def objects(answer):
    return [dcmread(io.BytesIO(one.get_payload(decode=True))) for one in parts(answer)]


def get(client, path, accept="*/*"):
    return client.get(path, headers={"accept": accept})


def value(found, tag):
    return found[tag]["Value"][0]


def test_a_study_is_found_with_what_the_standard_requires(client):
    (found,) = get(client, "/dicom-web/studies?PatientName=phantom*&StudyDate=20260301-").json()
    assert value(found, "00100010") == {"Alphabetic": "PHANTOM^ANNA"} and value(found, "0020000D") == "1.2.3"
    assert found["00080061"]["Value"] == ["DX", "PR"] and value(found, "00201208") == 4
    assert value(found, "00080056") == "ONLINE" and value(found, "00081190") == f"{HERE}/dicom-web/studies/1.2.3"
    required = ("00080020", "00080030", "00080050", "00100020", "00100030", "00100040", "00200010", "00201206")
    assert all(tag in found for tag in required)


def test_series_and_instances_are_found_below_their_study_and_by_tag(client):
    found = get(client, "/dicom-web/studies/1.2.3/series?00080060=DX&includefield=all").json()
    assert [value(one, "0020000E") for one in found] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    (one,) = get(client, "/dicom-web/studies/1.2.3/series/1.2.3.2/instances").json()
    assert (value(one, "00280008"), value(one, "00280010"), value(one, "00080018")) == (2, 20, "1.2.3.2.1")
    assert value(one, "00081190") == HERE + COLOUR
    assert len(get(client, "/dicom-web/instances?SOPInstanceUID=1.2.3.1.1,1.2.3.2.1").json()) == 2


def test_pages_say_that_there_is_more_and_end_empty(client):
    first = get(client, "/dicom-web/instances?limit=3")
    assert len(first.json()) == 3 and "more results" in first.headers["warning"]
    rest = get(client, "/dicom-web/instances?limit=3&offset=3")
    assert len(rest.json()) == 1 and "warning" not in rest.headers
    assert get(client, "/dicom-web/instances?offset=99999999999999999").json() == []
    assert get(client, "/dicom-web/instances?limit=0").json() == []


@pytest.mark.parametrize(
    "query",
    ["Nonsense=1", "0010=1", "limit=-1", "limit=x", "offset=1.5", "fuzzymatching=maybe", "StudyDate=tomorrow",
     "PatientID=1&PatientID=2", "includefield=Nonsense", "limit=9999999999999999999999", "PatientName=" + "x" * 20000],
)  # fmt: skip
def test_a_query_without_sense_is_400_with_a_reason(client, query):
    answer = get(client, f"/dicom-web/studies?{query}")
    assert answer.status_code == 400 and answer.json()["error"]


def test_what_is_not_matched_is_told(client):
    answer = get(client, "/dicom-web/studies?Modality=CT&00091001=x")
    assert answer.status_code == 200 and len(answer.json()) == 1
    assert "Modality" in answer.headers["warning"] and "00091001" in answer.headers["warning"]


@pytest.mark.parametrize("path", ["1.2.x", "1..2", "9" * 65])
def test_what_is_no_uid_is_400_and_what_is_not_held_404(client, path):
    assert get(client, f"/dicom-web/studies/{path}").status_code == 400
    assert get(client, "/dicom-web/studies/9.9.9").status_code == 404
    assert get(client, "/dicom-web/studies/1.2.3%2f4/metadata").status_code == 404


def test_results_and_metadata_come_as_xml(client):
    for path in ("/dicom-web/studies", "/dicom-web/studies/1.2.3/metadata"):
        answer = get(client, path, 'multipart/related; type="application/dicom+xml"')
        assert answer.status_code == 200
        assert all(one.get_payload(decode=True).startswith(b"<?xml") for one in parts(answer))
        assert b"<FamilyName>PHANTOM</FamilyName>" in answer.content
        assert get(client, path, "text/html").status_code == 406


def test_metadata_refers_to_large_values_and_they_can_be_fetched(client):
    whole = get(client, "/dicom-web/studies/1.2.3/metadata").json()
    assert len(whole) == 4
    (one,) = get(client, f"{FILM}/metadata").json()
    assert one["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{HERE}{FILM}/bulkdata/7FE00010"}
    assert value(one, "00083002") == "1.2.840.10008.1.2.1" and not any(tag.startswith("0002") for tag in one)
    answer = get(client, one["7FE00010"]["BulkDataURI"].removeprefix(HERE), "application/octet-stream")
    assert answer.content == chest_film().PixelData
    for place in ("00100010", "7FE0", "zz", "54000100/0/54001010", "7FE00010/0/00100010"):
        assert get(client, f"{FILM}/bulkdata/{place}").status_code == 404, place


def test_objects_come_as_they_lie_or_in_another_syntax_without_a_loss(client):
    pixels = film("1.2.3.1", "1.2.3.1.1").pixel_array
    stored = objects(
        get(client, "/dicom-web/studies/1.2.3", 'multipart/related; type="application/dicom"; transfer-syntax=*')
    )
    assert [str(one.SOPInstanceUID) for one in stored] == ["1.2.3.1.1", "1.2.3.2.1", "1.2.3.3.1", "1.2.3.4.1"]
    assert stored[2].file_meta.TransferSyntaxUID == JPEGLSLossless
    (plain,) = objects(get(client, PACKED, 'multipart/related; type="application/dicom"'))
    assert plain.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert np.array_equal(plain.pixel_array, pixels) and plain.SOPInstanceUID == "1.2.3.3.1"
    (rle,) = objects(get(client, FILM, f'multipart/related; type="application/dicom"; transfer-syntax={RLELossless}'))
    assert rle.file_meta.TransferSyntaxUID == RLELossless and np.array_equal(rle.pixel_array, pixels)
    alone = get(client, FILM, "application/dicom")
    assert dcmread(io.BytesIO(alone.content)).SOPInstanceUID == "1.2.3.1.1"
    assert get(client, FILM, "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50").status_code == 406
    assert get(client, FILM, "application/dicom; transfer-syntax=1.2.3").status_code == 406


def test_frames_come_as_they_lie_or_decoded(client):
    every = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    (one,) = parts(get(client, f"{FILM}/frames/1", every))
    assert one.get_payload(decode=True) == chest_film().PixelData
    first, second = parts(get(client, f"{COLOUR}/frames/2,1", every))
    assert first.get_payload(decode=True)[:3] == bytes([0, 0, 255]) and second.get_payload(decode=True)[0] == 255
    (packed,) = parts(get(client, f"{PACKED}/frames/1", every))
    assert packed.get_content_type() == "image/jls" and packed.get_payload(decode=True)[:2] == b"\xff\xd8"
    (decoded,) = parts(get(client, f"{PACKED}/frames/1", 'multipart/related; type="application/octet-stream"'))
    assert decoded.get_payload(decode=True) == chest_film().PixelData
    assert get(client, f"{FILM}/frames/1", "application/octet-stream").content == chest_film().PixelData
    assert get(client, f"{FILM}/frames/1", "image/jp2").status_code == 406


@pytest.mark.parametrize(
    ("frames", "status"), [("2", 404), ("0", 400), ("x", 400), ("1,", 400), ("-1", 400), ("1,99999999999", 400)]
)
def test_frames_that_are_not_there_are_refused(client, frames, status):
    assert get(client, f"{FILM}/frames/{frames}").status_code == status
    assert get(client, f"{STATE}/frames/1").status_code == 404


def picture(answer):
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_frame_is_shown_in_the_size_and_window_that_are_asked_for(client):
    shown = picture(get(client, f"{FILM}/rendered", "image/png"))
    assert shown.format == "PNG" and shown.size == (160, 160) and shown.mode == "L"
    levels = np.asarray(shown)
    assert levels[0, 0] == 0 and levels[-1, -1] == 255
    assert picture(get(client, f"{FILM}/rendered?viewport=80,40", "image/jpeg")).size == (40, 40)
    half = np.asarray(picture(get(client, f"{FILM}/rendered?viewport=80,80,80,80,80,80", "image/png")))
    assert half.shape == (80, 80) and half.min() > 110
    dark = np.asarray(picture(get(client, f"{FILM}/rendered?window=3000,100", "image/png")))
    assert dark[:100, :100].max() == 0 and dark[-1, -1] == 255
    small = get(client, f"{FILM}/rendered?quality=5", "image/jpeg")
    assert len(small.content) < len(get(client, f"{FILM}/rendered?quality=95", "image/jpeg").content)


def test_colour_frames_and_thumbnails_are_shown(client):
    blue = np.asarray(picture(get(client, f"{COLOUR}/frames/2/rendered", "image/png")))
    assert blue.shape == (20, 30, 3) and tuple(blue[5, 5]) == (0, 0, 255)
    assert picture(get(client, f"{COLOUR}/thumbnail")).size == (200, 133)
    assert picture(get(client, "/dicom-web/studies/1.2.3/thumbnail")).format == "JPEG"
    several = parts(get(client, "/dicom-web/studies/1.2.3/rendered", 'multipart/related; type="image/png"'))
    assert [one.get_content_type() for one in several] == ["image/png"] * 3


@pytest.mark.parametrize(
    "query",
    ["viewport=1", "viewport=0,5", "viewport=5,5,-1,0,5,5", "viewport=nan,5", "viewport=99999,5", "window=1,0",
     "window=1", "window=1,2,3", "window=inf,5", "quality=0", "quality=x", "quality=101"],
)  # fmt: skip
def test_views_without_sense_are_400(client, query):
    assert get(client, f"{FILM}/rendered?{query}").status_code == 400


def test_what_has_no_picture_says_so(client):
    answer = get(client, f"{STATE}/rendered")
    assert answer.status_code == 406 and "pixel data" in answer.json()["error"]
    assert get(client, f"{FILM}/rendered?viewport=5,5,150,150,50,50").status_code == 406
    assert get(client, f"{FILM}/rendered", "image/gif").status_code == 406
    assert get(client, f"{FILM}/rendered", "nonsense").status_code == 400


def test_the_surface_is_described(client):
    described = json.loads(get(client, "/openapi.json").text)
    assert described["openapi"].startswith("3.") and "/dicom-web/studies/{study}/metadata" in described["paths"]
