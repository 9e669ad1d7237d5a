"""STOW-RS: what is stored goes the way of every film, what is not is named with its reason; nothing is left over."""

from __future__ import annotations

import gzip
import json
import threading

import pytest
from pydicom import dcmread
from sqlalchemy import select
from starlette.testclient import TestClient

from firstread.agent.store import images as image_store
from firstread.agent.store.engine import StoreBusy
from firstread.agent.store.tables import event, instance, study
from firstread.agent.web.app import create_app
from firstread.integration.dicom.identity import series_uid
from firstread.integration.dicomweb.native_xml import to_xml
from tests.agent.builders import Bench, chest_film
from tests.stow import BOUNDARY, DICOM_PARTS, body, multipart, part10

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "spool")
    yield made
    made.store.close()


@pytest.fixture
def client(bench):
    with TestClient(create_app(bench.settings, bench.store), base_url=HERE) as made:
        yield made


def film(study_uid="1.2.3", sop="1.2.3.1.1", **attributes):
    one = chest_film()
    one.StudyInstanceUID, one.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = sop
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return one


def stow(client, content, content_type=DICOM_PARTS, place="/dicom-web/studies", **headers):
    return client.post(place, content=content, headers={"content-type": content_type, **headers})


def rows(bench, table):
    with bench.store.read() as connection:
        return connection.execute(select(table).order_by(table.c.id)).all()


def left_over(bench):
    return list((bench.settings.spool / "incoming").iterdir())


def failures(answer):
    return [
        (one.get("00081155", {}).get("Value", [""])[0], one["00081197"]["Value"][0], one["00000902"]["Value"][0])
        for tag in ("00081198", "0008119A")
        for one in answer.json().get(tag, {}).get("Value", [])
    ]


def test_instances_are_stored_like_films_that_came_by_c_store(bench, client):
    first, second = film(), film(sop="1.2.3.1.2")
    first.file_meta.SourceApplicationEntityTitle = "MODALITY"
    answer = stow(client, body(part10(first), part10(second)))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+json"
    said = answer.json()
    assert [one["00081155"]["Value"] for one in said["00081199"]["Value"]] == [["1.2.3.1.1"], ["1.2.3.1.2"]]
    assert said["00081190"]["Value"] == [f"{HERE}/dicom-web/studies/1.2.3"]
    kept = rows(bench, instance)
    assert [row.state for row in kept] == ["waiting", "waiting"]
    assert [row.association["calling_ae_title"] for row in kept] == ["MODALITY", "DICOMWEB"]
    assert dcmread(bench.settings.spool / kept[0].path).PixelData == first.PixelData
    assert left_over(bench) == []


def test_the_same_film_by_c_store_and_by_stow_is_kept_once(bench, client):
    content = part10(film())
    assert stow(client, body(content)).status_code == 200
    assert stow(client, body(content)).status_code == 200
    assert stow(client, content, "application/dicom").status_code == 200
    assert len(rows(bench, instance)) == 1 and [row.kind for row in rows(bench, event)].count("received again") == 2
    # the hash is that of the data set alone, so that it is the same whatever meta header stood in front
    (kept,) = rows(bench, instance)
    meta = dcmread(bench.settings.spool / kept.path).file_meta
    assert kept.size_bytes < len(content) and str(meta.ReceivingApplicationEntityTitle) == "FIRSTREAD"


def test_a_request_for_one_study_refuses_instances_of_another_and_stores_the_others(bench, client):
    answer = stow(client, body(part10(film()), part10(film("9.9", "9.9.1"))), place="/dicom-web/studies/1.2.3")
    assert answer.status_code == 202
    assert failures(answer) == [("9.9.1", 0xA900, "Study Instance UID differs from the one in the address")]
    assert [row.study_instance_uid for row in rows(bench, study)] == ["1.2.3"]
    assert rows(bench, event)[-1].kind == "refused" and left_over(bench) == []


def test_instances_that_cannot_be_read_are_named_and_nothing_of_them_is_kept(bench, client):
    cut = part10(film())[:400]
    nameless = film(sop="1.2.3.1.9", StudyInstanceUID="")
    answer = stow(client, body(b"no DICOM", cut, part10(nameless), b""))
    assert answer.status_code == 409
    assert [code for _, code, _ in failures(answer)] == [0xC000] * 4
    assert any("Study Instance UID (0020,000D) is missing" in why for _, _, why in failures(answer))
    assert rows(bench, instance) == [] and left_over(bench) == []


def test_an_instance_behind_the_meta_header_of_another_is_kept_under_its_own_name_with_a_warning(bench, client):
    content = part10(film()).replace(b"1.2.3.1.1\0", b"1.2.3.1.9\0", 1)
    answer = stow(client, body(content))
    assert answer.status_code == 202 and failures(answer) == []
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081155"]["Value"] == ["1.2.3.1.1"] and item["00081196"]["Value"] == [0xB007]
    (kept,) = rows(bench, instance)
    stored = dcmread(bench.settings.spool / kept.path)
    assert stored.file_meta.MediaStorageSOPInstanceUID == stored.SOPInstanceUID == "1.2.3.1.1"
    assert stow(client, body(part10(film()))).status_code == 200
    assert len(rows(bench, instance)) == 1 and left_over(bench) == []


def test_our_own_result_is_taken_and_never_analysed(bench, client):
    ours = series_uid(bench.site_uid, "1.2.3", "heatmap")
    assert stow(client, body(part10(film(SeriesInstanceUID=ours)))).status_code == 200
    assert rows(bench, instance)[0].state == "kept" and rows(bench, study) == []


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", DICOM_PARTS, 400),
        (b"garbage", DICOM_PARTS, 400),
        (body(b"x")[:-20], DICOM_PARTS, 400),
        (f"--{BOUNDARY}--\r\n".encode(), DICOM_PARTS, 400),
        (body(b"x"), 'multipart/related; type="application/dicom"', 400),
        (body(b"x"), f'multipart/related; type="application/dicom"; boundary={"b" * 999}', 400),
        (body(b"x"), "multipart/form-data; boundary=x", 415),
        (b"x", "text/plain", 415),
        (b"x", "", 400),
        (multipart(({"X": "y" * 70000}, b"x")), DICOM_PARTS, 400),
        (b"[]", "application/dicom+json", 415),
    ],
)
def test_a_body_that_is_no_store_request_is_refused_with_a_reason(bench, client, content, content_type, status):
    answer = stow(client, content, content_type)
    assert answer.status_code == status and answer.json()["error"]
    assert rows(bench, instance) == [] and left_over(bench) == []


def test_a_study_that_is_no_uid_is_refused(client):
    assert stow(client, body(b"x"), place="/dicom-web/studies/..%2f1").status_code == 404
    assert stow(client, body(b"x"), place="/dicom-web/studies/1.2.x").status_code == 400


def test_content_encodings_are_refused_before_anything_is_inflated(bench, client):
    bomb = gzip.compress(bytes(10_000_000))
    answer = stow(client, bomb, **{"content-encoding": "gzip"})
    assert answer.status_code == 415 and left_over(bench) == []


def test_what_was_stored_before_the_body_broke_is_told(bench, client):
    answer = stow(client, body(part10(film()), part10(film(sop="1.2.3.1.2")))[:-40])
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081155"]["Value"] == ["1.2.3.1.1"]
    assert "cut short" in failures(answer)[0][2]
    assert len(rows(bench, instance)) == 1 and left_over(bench) == []


def test_a_part_of_another_kind_is_named_among_the_failures(client):
    parts = ({"Content-Type": "application/dicom"}, part10(film())), ({"Content-Type": "image/png"}, b"png")
    answer = stow(client, multipart(*parts))
    assert answer.status_code == 202 and "image/png" in failures(answer)[0][2]


def test_an_instance_beyond_the_limit_is_413_and_leaves_no_file(tmp_path):
    bench = Bench(tmp_path / "spool", dicomweb={"max_instance_mb": 1})
    with TestClient(create_app(bench.settings, bench.store), base_url=HERE) as client:
        answer = stow(client, body(part10(film(PixelData=bytes(2 << 20)))))
        assert answer.status_code == 413 and "larger" in failures(answer)[0][2]
        assert left_over(bench) == []
    bench.store.close()


def test_a_busy_database_is_503_with_the_time_to_come_again(bench, client, monkeypatch):
    def busy(*_args, **_kwargs):
        raise StoreBusy("held")

    monkeypatch.setattr(image_store, "add", busy)
    answer = stow(client, body(part10(film())))
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    assert failures(answer)[0][1] == 0xA700 and left_over(bench) == []


def test_a_full_disk_is_507_and_nothing_is_read(tmp_path):
    bench = Bench(tmp_path / "spool", storage={"reserve_mb": 1 << 40})
    with TestClient(create_app(bench.settings, bench.store), base_url=HERE) as client:
        answer = stow(client, body(part10(film())))
        assert answer.status_code == 507 and "reserve" in answer.text
    bench.store.close()


def test_too_many_requests_at_once_are_told_to_wait(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "spool", dicomweb={"max_stores": 1})
    inside, go_on = threading.Event(), threading.Event()
    real = image_store.add

    def slow(*arguments):
        inside.set()
        go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(image_store, "add", slow)
    with TestClient(create_app(bench.settings, bench.store), base_url=HERE) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(stow(client, body(part10(film())))))
        first.start()
        assert inside.wait(60)
        assert client.get("/health").status_code in (200, 503), "the page goes on while a film is stored"
        second = stow(client, body(part10(film(sop="1.2.3.1.2"))))
        go_on.set()
        first.join(60)
    assert second.status_code == 503 and "retry-after" in second.headers
    assert [one.status_code for one in answers] == [200]
    bench.store.close()


def test_the_answer_comes_as_xml_where_that_is_asked_for(client):
    answer = stow(client, body(part10(film())), accept="application/dicom+xml")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+xml"
    assert b'keyword="ReferencedSOPSequence"' in answer.content
    assert stow(client, body(part10(film())), accept="text/csv").status_code == 406


def metadata_of(one, uri):
    written = one.to_json_dict()
    written["7FE00010"] = {"vr": "OW", "BulkDataURI": uri}
    return written


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_metadata_and_bulk_data_that_come_apart_become_one_film(bench, client, kind):
    one = film(PatientName="Müller^Jörg")
    written = metadata_of(one, "pixels/1")
    document = json.dumps([written]).encode() if kind == "json" else to_xml(written)
    content = multipart(
        ({"Content-Type": f"application/dicom+{kind}"}, document),
        ({"Content-Type": "application/octet-stream", "Content-Location": "pixels/1"}, one.PixelData),
    )
    answer = stow(client, content, f'multipart/related; type="application/dicom+{kind}"; boundary={BOUNDARY}')
    assert answer.status_code == 200, answer.text
    (kept,) = rows(bench, instance)
    stored = dcmread(bench.settings.spool / kept.path)
    assert stored.PixelData == one.PixelData and stored.PatientName == "Müller^Jörg" and stored.Rows == 160
    assert left_over(bench) == []


def test_metadata_without_its_bulk_data_or_without_sense_is_refused(bench, client):
    kind = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
    lacking = multipart(({"Content-Type": "application/dicom+json"}, json.dumps([metadata_of(film(), "a")]).encode()))
    answer = stow(client, lacking, kind)
    assert answer.status_code == 409 and "did not come" in failures(answer)[0][2]
    for senseless in (b"{", b"[]", b"[1]", b'[{"00080018": 3}]', b"[" * 100_000):
        wrong = multipart(({"Content-Type": "application/dicom+json"}, senseless))
        assert stow(client, wrong, kind).status_code == 400, senseless[:20]
    senseless_rows = metadata_of(film(), "a") | {"00280010": {"vr": "US", "Value": ["x"]}}
    broken = multipart(({"Content-Type": "application/dicom+json"}, json.dumps([senseless_rows]).encode()))
    assert stow(client, broken, kind).status_code == 409
    declared = multipart(({"Content-Type": "application/dicom+xml"}, b"<!DOCTYPE a><NativeDicomModel/>"))
    assert stow(client, declared, kind.replace("json", "xml")).status_code == 400
    assert rows(bench, instance) == [] and left_over(bench) == []
