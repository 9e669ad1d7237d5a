"""Intake: what is kept once, what opens a study again, what is left alone."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from firstread.agent import intake as intake_module
from firstread.agent.store import images, studies, watch
from firstread.agent.store.engine import StoreBusy
from firstread.agent.store.tables import ImageState, StudyState, instance, study
from firstread.integration.dicom.identity import series_uid
from firstread.integration.dicom.status import SUCCESS, OutOfResources
from tests.agent.builders import GSPS, Bench


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "spool")
    yield made
    made.store.close()


def rows(bench, table):
    with bench.store.read() as connection:
        return connection.execute(select(table).order_by(table.c.id)).all()


def films(bench):
    return sorted(path for path in (bench.settings.spool / "films").rglob("*") if path.is_file())


def end_studies(bench):
    """Whatever is received counts as ended, so that the next film is a late one."""
    with bench.store.write() as connection:
        connection.execute(study.update().values(state=StudyState.ANALYSED))
        connection.execute(instance.update().where(instance.c.state == "waiting").values(state=ImageState.ANALYSED))


def test_a_film_gets_its_place_its_rows_and_success(bench):
    received = bench.arrive()
    content = received.path.read_bytes()
    assert bench.intake.take(received) == SUCCESS
    (kept,) = rows(bench, instance)
    assert (bench.settings.spool / kept.path).read_bytes() == content
    assert kept.state == ImageState.WAITING and kept.association["calling_ae_title"] == "PACS"
    (of_study,) = rows(bench, study)
    assert (of_study.state, of_study.revision) == (StudyState.RECEIVING, 1)
    assert not received.path.exists()


def test_the_same_instance_again_is_kept_once_and_changes_nothing(bench):
    bench.receive(sop="1.2.9")
    before = rows(bench, study)
    assert bench.intake.take(bench.arrive(sop="1.2.9")) == SUCCESS
    assert len(rows(bench, instance)) == 1 and len(films(bench)) == 1
    assert rows(bench, study) == before


def test_the_same_uid_with_other_content_keeps_both_and_opens_a_new_revision_under_the_new_identity(bench):
    bench.receive(sop="1.2.9")
    end_studies(bench)
    bench.receive(sop="1.2.9", PatientID="PH0002", PatientName="PHANTOM^BRUNO")
    old, new = rows(bench, instance)
    assert (old.current, new.current, new.version) == (False, True, 2)
    assert len(films(bench)) == 2
    (of_study,) = rows(bench, study)
    assert (of_study.state, of_study.revision, of_study.patient_id) == (StudyState.RECEIVING, 2, "PH0002")
    with bench.store.read() as connection:
        (alarm,) = watch.alarms(connection)
    assert "PH0001" in alarm.text and "PH0002" in alarm.text


def test_a_late_image_opens_a_new_revision(bench):
    bench.receive()
    end_studies(bench)
    bench.receive()
    (of_study,) = rows(bench, study)
    assert (of_study.state, of_study.revision, of_study.cause) == (StudyState.RECEIVING, 2, "a late image")


def test_a_late_presentation_state_is_kept_and_opens_nothing(bench):
    bench.receive()
    end_studies(bench)
    bench.receive(sop_class=GSPS, Modality="PR")
    assert [row.state for row in rows(bench, instance)] == [ImageState.ANALYSED, ImageState.KEPT]
    (of_study,) = rows(bench, study)
    assert (of_study.state, of_study.revision) == (StudyState.ANALYSED, 1)


def test_a_film_that_was_purged_can_be_sent_again_and_is_not_analysed_anew(bench):
    bench.receive(sop="1.2.9")
    end_studies(bench)
    (kept,) = rows(bench, instance)
    (bench.settings.spool / kept.path).unlink()
    with bench.store.write() as connection:
        connection.execute(instance.update().values(path="", preview_path=None))
    assert bench.intake.take(bench.arrive(sop="1.2.9")) == SUCCESS
    (again,) = rows(bench, instance)
    assert (bench.settings.spool / again.path).is_file()
    assert again.state == ImageState.ANALYSED
    assert rows(bench, study)[0].revision == 1


def test_our_own_heat_map_coming_back_is_taken_noted_and_never_analysed(bench):
    bench.receive()
    end_studies(bench)
    ours = series_uid(bench.site_uid, "1.2.3", "heatmap")
    assert bench.intake.take(bench.arrive(series=ours, sop_class="1.2.840.10008.5.1.4.1.1.7", sop="2.25.1")) == SUCCESS
    assert rows(bench, instance)[-1].state == ImageState.KEPT
    (of_study,) = rows(bench, study)
    assert (of_study.state, of_study.revision) == (StudyState.ANALYSED, 1)


def test_our_own_report_for_a_study_we_do_not_know_makes_no_study(bench):
    ours = series_uid(bench.site_uid, "1.2.77", "sr")
    bench.receive(study="1.2.77", series=ours, sop_class="1.2.840.10008.5.1.4.1.1.88.34", sop="2.25.2")
    assert rows(bench, study) == [] and rows(bench, instance)[0].study_id is None


def test_our_own_result_is_recognised_where_a_pacs_gave_it_another_study_and_series(bench):
    bench.receive(study="1.2.88", series="1.2.88.1", sop_class="1.2.840.10008.5.1.4.1.1.7", DeviceUID=bench.site_uid)
    assert rows(bench, study) == [] and rows(bench, instance)[0].state == ImageState.KEPT


def test_one_study_over_two_associations_and_two_studies_over_one(bench):
    bench.receive(study="1.2.3")
    bench.receive(study="1.2.4")
    bench.receive(study="1.2.3", calling="OTHER")
    assert [row.study_instance_uid for row in rows(bench, study)] == ["1.2.3", "1.2.4"]


def test_a_busy_database_is_answered_out_of_resources_and_leaves_no_file(bench, monkeypatch):
    def busy(*_args, **_kwargs):
        raise StoreBusy("held")

    monkeypatch.setattr(intake_module.images, "add", busy)
    with pytest.raises(OutOfResources):
        bench.receive()
    assert films(bench) == [] and rows(bench, study) == []


def test_an_unwritable_spool_is_answered_out_of_resources(bench, monkeypatch):
    def full(_folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake_module, "fsync_folder", full)
    with pytest.raises(OutOfResources, match="No space left"):
        bench.receive()
    assert rows(bench, instance) == []


def test_values_that_break_their_vr_are_kept_as_received(bench):
    long = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"
    bench.receive(AccessionNumber=long, PatientBirthDate="19000000", PatientAge="00A")
    (of_study,) = rows(bench, study)
    assert of_study.accession_number == long


def test_an_instance_that_moved_to_another_study_opens_the_first_one_again(bench):
    bench.receive(study="1.2.3", sop="1.2.9")
    end_studies(bench)
    bench.receive(study="1.2.4", sop="1.2.9")
    first, second = rows(bench, study)
    assert first.state == StudyState.RECEIVING and second.state == StudyState.RECEIVING
    with bench.store.read() as connection:
        assert studies.images_of(connection, first.id) == []
        assert images.newest_version(connection, "1.2.9").study_id == second.id
