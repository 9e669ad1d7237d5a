"""The pages as they are served: what stands in a row, what an opened study shows, what can be done by hand."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from firstread.agent.store.reading_list import ended_entries, open_entries
from firstread.agent.web.app import create_app
from firstread.agent.web.list_pages import viewer_address
from tests.agent.web_seed import Morning, busy_morning

HERE = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    morning = Morning.on(tmp_path_factory.mktemp("page") / "spool")
    morning.roles()
    ids = busy_morning(morning)
    yield morning, ids
    morning.store.close()


@pytest.fixture
def client(seeded):
    morning, _ = seeded
    return TestClient(create_app(morning.settings, morning.store), base_url=HERE)


@pytest.fixture
def own(tmp_path):
    """A list of this test's own, to be changed."""
    morning = Morning.on(tmp_path / "spool")
    morning.roles()
    yield morning, TestClient(create_app(morning.settings, morning.store), base_url=HERE)
    morning.store.close()


def row(html: str, entry_id: int) -> str:
    found = re.search(rf'<div role="row"[^>]*id="s{entry_id}".*?</div>', html, re.S)
    assert found, f"no row {entry_id}"
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>", "", found.group(), flags=re.S))


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def token(html: str) -> str:
    return re.search(r'name="token" value="([0-9a-f]+)"', html).group(1)


def test_rows_stand_in_reading_order_and_in_order_of_arrival_when_asked(client, seeded) -> None:
    ids = seeded[1]
    now = [int(found) for found in re.findall(r'id="s(\d+)"', client.get("/").text)]
    assert now[:2] == [ids["stat"], ids["ordered"]]
    assert now.index(ids["japanese"]) < now.index(ids["waited"]) < now.index(ids["plain"])
    arrival = [int(found) for found in re.findall(r'id="s(\d+)"', client.get("/?order=arrival").text)]
    assert arrival[0] == ids["waited"]
    assert sorted(arrival) == sorted(now)


def test_a_row_says_priority_by_word_and_mark_finding_bar_number_and_reason(client, seeded) -> None:
    page = client.get("/").text
    said = text(row(page, seeded[1]["stat"]))
    assert "!! STAT" in said
    assert "pneumothorax 0.81" in said
    assert "raised: above 0.60" in said
    assert '<rect class="share"' in page


def test_not_analysed_is_as_loud_as_a_finding_and_experimental_is_marked(client, seeded) -> None:
    page = client.get("/").text
    assert "not analysed: lateral view" in text(row(page, seeded[1]["lateral"]))
    assert 'class="said reason"' in row(page, seeded[1]["lateral"])
    nodule = row(page, seeded[1]["nodule"])
    assert '<em title="experimental">exp.</em>' in nodule and "exp." in text(client.get("/").text.split("<main")[0])
    assert "0.71 experimental" in nodule.split("aria-label=")[1].split('" title')[0], (
        "said in full to who hears the list"
    )
    assert "ROUTINE" in text(nodule), "an experimental finding raises nothing"


def test_working_states_are_told(client, seeded) -> None:
    page, ids = client.get("/").text, seeded[1]
    assert "analysing" in text(row(page, ids["analysing"]))
    assert "1 film waits for analysis" in text(row(page, ids["received"]))
    assert "its message is on the way" in text(row(page, ids["unsent"]))


def test_nothing_on_any_page_calls_a_study_normal(client, seeded) -> None:
    for path in ("/", f"/study/{seeded[1]['quiet']}", f"/study/{seeded[1]['stat']}", "/system", "/off"):
        assert "normal" not in text(client.get(path).text).lower()
    assert "None of the 14 assessed findings above threshold" in text(client.get(f"/study/{seeded[1]['quiet']}").text)


def test_japanese_names_are_shown_as_written_with_their_other_writing(client, seeded) -> None:
    assert "森 聡 MORI, SATOSHI" in text(row(client.get("/").text, seeded[1]["waited"]))


def test_the_opened_study_shows_all_findings_trail_report_and_message(client, seeded) -> None:
    page = client.get(f"/study/{seeded[1]['effusion']}").text
    said = text(page)
    assert len(re.findall(r'<th scope="row">', page)) == 14
    for part in ("effusion", "0.66", "0.58", "pleural thickening", "reference 0.3.0", "A26-4005", "1962-07-14"):
        assert part in said
    assert "film received from" not in said or "CR_ROOM_2" in said
    assert "Imaging Measurement Report" in said, "the content of the structured report"
    assert "MSH|^~\\&amp;|FIRSTREAD" in page, "the message as it was sent"
    assert "result reached the reading list, revision 1" in said
    assert re.search(r'<img class="heat"[^>]*heat/Effusion\.png', page)
    assert page.count('class="box') >= 3


def test_pictures_are_served_and_heat_is_drawn_where_the_lesion_is(client, seeded) -> None:
    import io

    import numpy as np
    from PIL import Image

    page = client.get(f"/study/{seeded[1]['stat']}").text
    film = int(re.search(r'data-film="(\d+)"', page).group(1))
    preview = Image.open(io.BytesIO(client.get(f"/film/{film}/preview.png").content))
    heat = np.asarray(Image.open(io.BytesIO(client.get(f"/film/{film}/heat/Pneumothorax.png").content)))
    assert preview.size == (512, 512)
    assert heat.shape[2] == 4
    columns = np.nonzero(heat[..., 3] > 60)[1]
    assert columns.mean() > heat.shape[1] / 2, "the drawn pneumothorax lies on the image's right"
    small = client.get(f"/film/{film}/thumb.jpg")
    assert small.headers["content-type"] == "image/jpeg"
    assert len(small.content) < 10_000
    assert client.get(f"/film/{film}/heat/Nonsense.png").status_code == 404
    assert client.get("/film/999999/preview.png").status_code == 404


def test_an_opened_study_leads_to_the_site_s_viewer_and_to_none_where_none_is_set(client, seeded) -> None:
    assert "open in viewer" not in client.get(f"/study/{seeded[1]['stat']}").text
    template = "https://viewer.example.org/v?StudyInstanceUIDs={study}&x=1"
    assert viewer_address(template, "1.2.3") == "https://viewer.example.org/v?StudyInstanceUIDs=1.2.3&x=1"
    assert viewer_address(template, '1.2"><script>') == (
        "https://viewer.example.org/v?StudyInstanceUIDs=1.2%22%3E%3Cscript%3E&x=1"
    )
    assert viewer_address(template, "") == viewer_address(None, "1.2.3") == ""


def test_a_viewer_that_is_set_stands_beside_the_study_s_name(seeded) -> None:
    morning, ids = seeded
    web = morning.settings.web.model_copy(update={"viewer_url": "/viewer?StudyInstanceUIDs={study}"})
    app = create_app(morning.settings.model_copy(update={"web": web}), morning.store)
    page = TestClient(app, base_url=HERE).get(f"/study/{ids['stat']}").text
    assert re.search(
        r'<a class="viewer" href="/viewer\?StudyInstanceUIDs=[0-9.]+" target="_blank" rel="noreferrer">', page
    )


def test_a_picture_outside_the_spool_is_never_served(own) -> None:
    from sqlalchemy import update

    from firstread.agent.store.tables import instance

    morning, client = own
    morning.read("DOE^JOHN", 5)
    with morning.store.write() as connection:
        connection.execute(update(instance).values(preview_path="../../../../etc/hostname"))
    assert client.get("/film/1/preview.png").status_code == 404


def test_what_senders_write_is_never_markup(own) -> None:
    morning, client = own
    morning.read("<script>alert(2)</script>^'\"&", 5, patient_id='"><script>alert(1)</script>')
    page = client.get("/study/1").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


def test_an_empty_list_says_why_it_is_empty(own) -> None:
    morning, client = own
    assert "No film has been received yet" in client.get("/").text
    entry_id = morning.read("DOE^JOHN", 5)
    page = client.get(f"/study/{entry_id}").text
    client.post(f"/study/{entry_id}/remove", data={"token": token(page), "why": "read elsewhere"})
    assert "has been reported or taken off" in client.get("/").text
    morning.roles(dead=("receive",))
    client = TestClient(create_app(morning.settings, morning.store), base_url=HERE)
    assert "PACS in has a problem" in client.get("/").text


def test_a_study_is_taken_off_with_a_reason_and_put_back_by_hand(own) -> None:
    morning, client = own
    entry_id = morning.read("DOE^JOHN", 5)
    page = client.get(f"/study/{entry_id}").text
    assert f"firstread worklist remove {entry_id}" in page, "the command that does the same is shown"
    refused = client.post(f"/study/{entry_id}/remove", data={"token": token(page), "why": " "})
    assert refused.status_code == 400
    done = client.post(
        f"/study/{entry_id}/remove", data={"token": token(page), "why": "a test film"}, follow_redirects=False
    )
    assert done.status_code == 303
    with morning.store.read() as connection:
        assert not open_entries(connection)
        assert ended_entries(connection, 1)[0].ended_by == "page: a test film"
    off = client.get("/off").text
    assert "a test film" in text(off)
    client.post(f"/study/{entry_id}/restore", data={"token": token(off)})
    with morning.store.read() as connection:
        assert [one.id for one in open_entries(connection)] == [entry_id]


def test_a_form_without_its_token_or_from_another_site_does_nothing(own) -> None:
    morning, client = own
    entry_id = morning.read("DOE^JOHN", 5)
    good = token(client.get(f"/study/{entry_id}").text)
    tries = (
        ({"why": "x"}, {}),
        ({"why": "x", "token": "0" * 64}, {}),
        ({"why": "x", "token": good}, {"origin": "http://evil.example"}),
        ({"why": "x", "token": good}, {"sec-fetch-site": "cross-site"}),
    )
    for form, headers in tries:
        assert client.post(f"/study/{entry_id}/remove", data=form, headers=headers).status_code == 403
    stranger = TestClient(create_app(morning.settings, morning.store), base_url=HERE)
    assert stranger.post(f"/study/{entry_id}/remove", data={"why": "x", "token": good}).status_code == 403
    with morning.store.read() as connection:
        assert open_entries(connection)


def test_orders_without_a_film_are_told_apart_from_what_can_be_read(own) -> None:
    from tests.agent.test_worklist_inbox import Box, order

    morning, client = own
    Box(morning)(order())
    assert "Nothing to read" in client.get("/").text
    assert "1 order waits for its film" in client.get("/").text
    off = text(client.get("/off").text)
    assert "DOE, JOHN" in off
    assert "STAT" in off


def test_rows_that_a_page_missed_are_served_by_id(client, seeded) -> None:
    ids = seeded[1]
    answer = client.get(f"/rows?ids={ids['stat']},{ids['quiet']},99999,x")
    assert sorted(int(found) for found in re.findall(r'id="s(\d+)"', answer.text)) == sorted(
        (ids["stat"], ids["quiet"])
    )
    assert client.get("/rows?ids=").text == ""


def test_the_first_page_of_200_studies_is_ready_fast(tmp_path) -> None:
    import time

    from firstread.agent.store import studies
    from firstread.agent.store.worklist import ensure_entry

    morning = Morning.on(tmp_path / "spool")
    with morning.store.write() as connection:
        for number in range(200):
            morning.count += 1
            identity = morning.identity(f"FAMILY{number}^GIVEN")
            studies.create(connection, identity, "CR", None, morning.at(number))
            ensure_entry(connection, identity, morning.at(number).at)
    client = TestClient(create_app(morning.settings, morning.store), base_url=HERE)
    client.get("/")
    took = []
    for _ in range(5):
        began = time.perf_counter()
        page = client.get("/")
        took.append(time.perf_counter() - began)
    morning.store.close()
    assert page.text.count('class="row ') >= 200
    assert min(took) < 0.2
