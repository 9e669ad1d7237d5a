"""What is held can be found as the standard matches, on every level and both databases, and its bytes handed out."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from firstread.agent.care import Care
from firstread.agent.holdings import Holdings, holding_of
from firstread.agent.names import name_key, name_words, soundex
from firstread.agent.objects import ResultObjects
from firstread.agent.store import holdings
from firstread.agent.store.holding_tables import held_instance, held_series, held_study
from firstread.agent.store.holdings_search import BadQuery, Level, Query, can_match, search
from firstread.agent.store.tables import ImageState, StudyState, instance, site, study
from firstread.agent.studies import SummingUp
from tests.agent.builders import GSPS, Bench, moment


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request, tmp_path):
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Bench(tmp_path / "spool", url)
    yield made
    made.store.close()


@pytest.fixture
def light(tmp_path):
    made = Bench(tmp_path / "spool")
    yield made
    made.store.close()


def find(bench, level=Level.STUDY, *, fuzzy=False, limit=100, offset=0, **match):
    with bench.store.read() as connection:
        return search(connection, Query(level, match, fuzzy), limit=limit, offset=offset)


def studies_found(bench, **match):
    return {one["StudyInstanceUID"] for one in find(bench, **match)}


def all_objects(bench, study_uid):
    with bench.store.read() as connection:
        return [one for _, one in holdings.objects(connection, study_uid)]


def end_studies(bench):
    with bench.store.write() as connection:
        connection.execute(study.update().values(state=StudyState.ANALYSED))
        connection.execute(instance.update().where(instance.c.state == "waiting").values(state=ImageState.ANALYSED))


def test_a_received_film_is_found_on_every_level_with_what_its_header_says(bench):
    bench.receive(study="1.2.3", series="1.2.3.1", sop="1.2.3.1.1", StudyDescription="Thorax", SeriesDescription="PA")
    bench.receive(study="1.2.3", series="1.2.3.2", sop="1.2.3.2.1", sop_class=GSPS, Modality="PR")
    (one,) = find(bench)
    assert one["PatientName"] == "PHANTOM^ANNA" and one["StudyDate"] == "20260301" and one["StudyTime"] == "113000"
    assert one["AccessionNumber"] == "ACC1" and one["StudyDescription"] == "Thorax" and one["StudyID"] == "S1"
    assert one["ModalitiesInStudy"] == ["DX", "PR"]
    assert (one["NumberOfStudyRelatedSeries"], one["NumberOfStudyRelatedInstances"]) == (2, 2)
    first, second = find(bench, Level.SERIES, StudyInstanceUID="1.2.3")
    assert (first["Modality"], first["SeriesDescription"], first["SeriesNumber"]) == ("DX", "PA", "1")
    assert second["Modality"] == "PR" and second["NumberOfSeriesRelatedInstances"] == 1
    (film,) = find(bench, Level.INSTANCE, SOPInstanceUID="1.2.3.1.1")
    assert (film["Rows"], film["Columns"], film["BitsAllocated"], film["InstanceNumber"]) == (160, 160, 16, "1")
    assert film["PatientID"] == "PH0001" and film["Modality"] == "DX"


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({"PatientID": "PH1"}, {"1.1"}),
        ({"PatientID": "ph1"}, set()),
        ({"PatientID": "PH*"}, {"1.1", "1.2", "1.3"}),
        ({"PatientID": "PH?"}, {"1.1", "1.2"}),
        ({"PatientID": "ph*"}, set()),
        ({"PatientID": "PH[1]"}, set()),
        ({"PatientID": ""}, {"1.1", "1.2", "1.3"}),
        ({"PatientID": "*"}, {"1.1", "1.2", "1.3"}),
        ({"AccessionNumber": "A_1*"}, {"1.1"}),
        ({"AccessionNumber": "A%"}, set()),
        ({"PatientName": "müller^jörg"}, {"1.1"}),
        ({"PatientName": "MULLER*"}, {"1.1"}),
        ({"PatientName": "Yamada^Tarou"}, {"1.2"}),
        ({"PatientName": "山田^太郎"}, {"1.2"}),
        ({"PatientName": "やま*"}, {"1.2"}),
        ({"PatientName": "Tarou"}, set()),
        ({"StudyDate": "20260301"}, {"1.1"}),
        ({"StudyDate": "20260301-20260302"}, {"1.1", "1.2"}),
        ({"StudyDate": "-20260301"}, {"1.1"}),
        ({"StudyDate": "20260302-"}, {"1.2", "1.3"}),
        ({"StudyTime": "1130-1131"}, {"1.1", "1.2"}),
        ({"StudyTime": "1130"}, {"1.1"}),
        ({"StudyInstanceUID": "1.1\\1.3\\9.9"}, {"1.1", "1.3"}),
        ({"ModalitiesInStudy": "CR"}, {"1.3"}),
        ({"ModalitiesInStudy": "CR\\DX"}, {"1.1", "1.2", "1.3"}),
        ({"SOPClassesInStudy": GSPS}, {"1.3"}),
        ({"PatientID": "PH*", "StudyDate": "20260303-", "ModalitiesInStudy": "C*"}, {"1.3"}),
    ],
)
def test_attributes_are_matched_as_the_standard_says(three, match, found):
    assert studies_found(three, **match) == found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def three(request, tmp_path_factory):
    """Three studies, on each database."""
    url = None
    if request.param == "postgresql":
        _, port = request.getfixturevalue("postgres_server")
        url = f"postgresql+psycopg://firstread@127.0.0.1:{port}/postgres"
    made = Bench(tmp_path_factory.mktemp("three") / "spool", url)
    made.receive(study="1.1", series="1.1.1", PatientID="PH1", PatientName="Müller^Jörg", AccessionNumber="A_1x")
    made.receive(
        study="1.2", series="1.2.1", PatientID="PH2", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        StudyDate="20260302", StudyTime="113100.5", AccessionNumber="AB1x",
    )  # fmt: skip
    meyer = {"PatientID": "PH33", "PatientName": "MEYER^EVA MARIA", "StudyDate": "20260303", "StudyTime": "1200"}
    made.receive(study="1.3", series="1.3.1", Modality="CR", **meyer)
    made.receive(study="1.3", series="1.3.2", sop_class=GSPS, Modality="CR", **meyer)
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("name", "found"),
    [("jorg muller", {"1.1"}), ("Maier", {"1.3"}), ("maria mey", {"1.3"}), ("eva yamada", set()), ("山田", {"1.2"})],
)
def test_fuzzy_names_are_found_by_word_beginning_and_sound(three, name, found):
    assert {one["StudyInstanceUID"] for one in find(three, fuzzy=True, PatientName=name)} == found


@pytest.mark.parametrize(
    "match",
    [{"StudyDate": "yesterday"}, {"StudyDate": "2026"}, {"StudyDate": "-"}, {"StudyTime": "99x"}, {"Modality": "DX"},
     {"NumberOfStudyRelatedSeries": "1"}, {"Unheard": "1"}],
)  # fmt: skip
def test_a_value_that_means_nothing_is_refused_with_its_attribute(three, match):
    with pytest.raises(BadQuery, match=next(iter(match))):
        find(three, **match)


def test_numbers_beyond_dicom_are_refused_and_lower_levels_cannot_be_asked_for(three):
    with pytest.raises(BadQuery):
        find(three, Level.INSTANCE, Rows="9" * 30)
    assert can_match("PatientID", Level.INSTANCE) and not can_match("Rows", Level.SERIES)
    assert not can_match("NumberOfStudyRelatedSeries", Level.STUDY)


def test_pages_give_every_match_once_newest_study_first(three):
    pages = [find(three, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [[one["StudyInstanceUID"] for one in page] for page in pages] == [["1.3", "1.2"], ["1.1"], []]
    assert len({one["SOPInstanceUID"] for one in find(three, Level.INSTANCE)}) == 4


def test_a_corrected_film_is_held_in_its_newest_version_under_its_new_patient(bench):
    bench.receive(sop="1.2.9", AccessionNumber="OLD")
    bench.receive(sop="1.2.9", PatientID="PH2", PatientName="PHANTOM^BRUNO", StudyDescription="")
    (one,) = find(bench)
    assert (one["PatientID"], one["NumberOfStudyRelatedInstances"]) == ("PH2", 1)
    (held,) = all_objects(bench, "1.2.3")
    assert dcmread(bench.settings.spool / held.path).PatientID == "PH2"


def test_an_instance_that_moved_to_another_study_is_held_there_alone(bench):
    bench.receive(study="1.2.3", sop="1.2.9")
    bench.receive(study="1.2.4", series="1.2.4.1", sop="1.2.9")
    assert studies_found(bench) == {"1.2.4"} and len(find(bench, Level.SERIES)) == 1


def test_purged_films_are_held_no_more_and_are_again_when_they_come_again(bench):
    bench.receive(sop="1.2.9")
    end_studies(bench)
    with bench.store.write() as connection:
        connection.execute(instance.update().values(received_at=moment(-86400 * 3).at))
    brief = bench.settings.storage.model_copy(update={"keep_days": 1})
    care = Care(bench.settings.model_copy(update={"storage": brief}), bench.store)
    assert care.retention() == 1
    assert find(bench) == [] and find(bench, Level.SERIES) == [] and find(bench, Level.INSTANCE) == []
    bench.receive(sop="1.2.9")
    assert studies_found(bench) == {"1.2.3"}


def summed_up(bench):
    """A study with its report and heat map; the time is far after noon of its day."""
    bench.receive(sop="1.2.9")
    (claim,) = bench.claim(moment(1))
    assert bench.end_analysed(claim, moment(2), Pneumothorax=0.9)
    with bench.store.write() as connection:
        connection.execute(study.update().values(touched_at=moment(-9999).at, touched_boot_id="earlier"))
    SummingUp(bench.settings, bench.store, ResultObjects(bench.settings, bench.store, bench.site_uid)).run_once()


def test_our_report_and_heat_map_are_held_from_their_frozen_bytes(bench):
    summed_up(bench)
    (one,) = find(bench)
    assert one["ModalitiesInStudy"] == ["DX", "OT", "SR"]
    made = [held for held in all_objects(bench, "1.2.3") if held.made_here]
    assert len(made) == 2
    for held in made:
        content = dcmread(bench.settings.spool / held.path)
        assert content.SOPInstanceUID == held.sop_instance_uid and content.StudyInstanceUID == "1.2.3"
    assert one["PatientID"] == "PH0001"


def test_our_own_report_coming_back_leaves_the_frozen_bytes_where_they_are(bench):
    summed_up(bench)
    report = next(held for held in all_objects(bench, "1.2.3") if held.made_here)
    before = all_objects(bench, "1.2.3")
    bench.receive(
        study="1.2.3", series=report.series_instance_uid, sop=report.sop_instance_uid, sop_class=report.sop_class_uid
    )
    assert all_objects(bench, "1.2.3") == before


def test_what_was_there_before_the_tables_is_entered_newest_first_and_once(light, monkeypatch):
    monkeypatch.setattr("firstread.agent.holdings.ENTERED_AT_ONCE", 2)
    summed_up(light)
    light.receive(study="1.2.4", series="1.2.4.1")
    light.receive(study="1.2.5", series="1.2.5.1")
    lost = light.receive(study="1.2.6", series="1.2.6.1")
    before = {one.sop_instance_uid for one in all_objects(light, "1.2.3")} | {"1.2.3.1.2", "1.2.3.1.3"}
    with light.store.write() as connection:
        for table in (held_instance, held_series, held_study):
            connection.execute(table.delete())
        connection.execute(site.insert().values(key="holdings/instance", value="4"))
        connection.execute(site.insert().values(key="holdings/artifact", value="99"))
        (row,) = connection.execute(instance.select().where(instance.c.sop_instance_uid == lost.sop_instance_uid))
    (light.settings.spool / row.path).unlink()
    older = Holdings(light.settings, light.store, light.site_uid)
    while older.enter_older():
        pass
    assert {one["SOPInstanceUID"] for one in find(light, Level.INSTANCE)} == before
    assert older.enter_older() == 0


def test_a_name_is_compared_without_case_accents_and_empty_components():
    assert name_key("Strauß^José^^ =山田") == "STRAUSS^JOSE=山田"
    assert name_words("MEYER^Eva") == " MEYER =M600 EVA =E100 "
    assert soundex("MAIER") == soundex("MEYER") and soundex("TYMCZAK") == "T522" and soundex("PFISTER") == "P236"


def test_values_that_break_their_vr_are_kept_within_the_columns():
    header = Dataset()
    header.PatientID, header.StudyDate, header.PatientName = "x" * 900, "2026.03.01", "Ä" * 900
    header.Rows = 0
    kept = holding_of(header, "1.2.840.10008.1.2.1")
    assert len(kept.study["patient_id"]) == 256 and kept.study["study_date"] == "20260301"
    assert len(kept.study["patient_name_words"]) <= 512 and kept.instance["rows"] is None
