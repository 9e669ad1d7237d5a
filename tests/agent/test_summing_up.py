"""A quiet study becomes a result with its frozen bytes and deliveries, all in one transaction."""

from __future__ import annotations

import hashlib
from io import BytesIO

import pytest
from pydicom import dcmread
from sqlalchemy import select

from firstread.agent import clock
from firstread.agent.objects import ResultObjects, leading_finding
from firstread.agent.store import studies, watch
from firstread.agent.store.codec import assessment_from_json
from firstread.agent.store.tables import DeliveryState, StudyState, artifact, delivery, result
from firstread.agent.studies import SummingUp
from firstread.integration.hl7.reported import parse_result
from firstread.models.findings import ReasonCode
from firstread.models.prediction import ModelIdentity, Priority, Reason
from tests.agent.builders import Bench, moment
from tests.models.tiny import make_tiny_bundle

POLICY = {"Effusion": {"threshold": 0.6, "priority": "URGENT"}, "Pneumothorax": {"threshold": 0.6, "priority": "STAT"}}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bench(tmp_path, tiny_bundle, monkeypatch):
    triage = {"use_experimental": True, "findings": POLICY}
    made = Bench(tmp_path / "spool", bundle=tiny_bundle, triage=triage)
    made.set_clock = lambda when: monkeypatch.setattr(clock, "now", lambda: when)
    made.set_clock(moment(0))
    made.summing_up = SummingUp(made.settings, made.store, ResultObjects(made.settings, made.store, made.site_uid))
    yield made
    made.store.close()


def analyse(bench, **probabilities):
    for claim in bench.claim(moment(1)):
        bench.end_analysed(claim, moment(1), **probabilities)


def sum_up(bench, after_s=20.0):
    bench.set_clock(moment(after_s))
    return bench.summing_up.run_once()


def rows(bench, table):
    with bench.store.read() as connection:
        return connection.execute(select(table).order_by(table.c.id)).all()


def last_assessment(bench):
    return assessment_from_json(rows(bench, result)[-1].assessment)


def test_a_raised_study_goes_out_to_every_destination_with_matching_hashes(bench):
    bench.receive()
    analyse(bench, Effusion=0.8)
    assert sum_up(bench) == 1
    kept = {one.kind: one for one in rows(bench, artifact)}
    assert set(kept) == {"sr", "heatmap", "oru"}
    assert [(d.destination, d.kind, d.state) for d in rows(bench, delivery)] == [
        ("pacs", "sr", DeliveryState.PENDING),
        ("pacs", "heatmap", DeliveryState.PENDING),
        ("ris", "oru", DeliveryState.PENDING),
    ]
    for kind in ("sr", "heatmap"):
        content = (bench.settings.spool / kept[kind].path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == kept[kind].sha256
        made = dcmread(BytesIO(content))
        assert (made.SOPInstanceUID, made.StudyInstanceUID) == (kept[kind].identity, "1.2.3")
    said = parse_result(bytes(kept["oru"].message))
    assert said.priority is Priority.URGENT


def test_a_study_that_was_not_analysed_goes_out_with_its_reason_and_without_a_heat_map(bench):
    bench.receive(ViewPosition="LL")
    (claim,) = bench.claim(moment(1))
    with bench.store.write() as connection:
        from firstread.agent.store import images

        reason = Reason(ReasonCode.LATERAL_VIEW)
        images.end_not_analysed(connection, claim, reason, preview_path=None, actor="a", now=moment(2))
    assert sum_up(bench) == 1
    kept = {one.kind: one for one in rows(bench, artifact)}
    assert set(kept) == {"sr", "oru"}
    message = bytes(kept["oru"].message).decode()
    assert "LATERAL_VIEW" in message and "TQ1" not in message
    with bench.store.read() as connection:
        assert studies.find(connection, "1.2.3").state == StudyState.NOT_ANALYSED


def test_a_study_of_reports_alone_ends_with_a_reason(bench):
    bench.receive(sop_class="1.2.840.10008.5.1.4.1.1.104.1", Modality="DOC")
    assert sum_up(bench) == 1
    assert last_assessment(bench).reason.code is ReasonCode.NO_IMAGE
    assert {one.kind for one in rows(bench, artifact)} == {"sr", "oru"}


def test_a_late_image_makes_a_revision_that_supersedes_what_was_not_sent_yet(bench):
    bench.receive()
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    bench.receive()
    analyse(bench, Pneumothorax=0.9)
    assert sum_up(bench, 40) == 1
    new = last_assessment(bench)
    assert (new.revision, new.priority) == (2, Priority.STAT)
    states = [(d.revision, d.kind, d.state) for d in rows(bench, delivery)]
    assert states[:3] == [(1, kind, DeliveryState.SUPERSEDED) for kind in ("sr", "heatmap", "oru")]
    assert states[3:] == [(2, kind, DeliveryState.PENDING) for kind in ("sr", "heatmap", "oru")]
    first, second = [one for one in rows(bench, artifact) if one.kind == "sr"]
    report = dcmread(bench.settings.spool / second.path)
    (before,) = report.PredecessorDocumentsSequence
    assert before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.identity


def test_a_revision_that_changes_nothing_is_recorded_and_not_sent(bench):
    bench.receive(sop="1.2.9")
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    bench.receive(sop="1.2.9", InstanceNumber=2)
    analyse(bench, Effusion=0.8)
    assert sum_up(bench, 40) == 1
    assert [(one.revision, one.sent) for one in rows(bench, result)] == [(1, True), (2, False)]
    assert len(rows(bench, delivery)) == 3


def test_a_corrected_patient_goes_out_again_though_the_findings_are_the_same(bench):
    bench.receive(sop="1.2.9")
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    bench.receive(sop="1.2.9", PatientID="PH0002", PatientName="PHANTOM^BRUNO")
    analyse(bench, Effusion=0.8)
    assert sum_up(bench, 40) == 1
    oru = [one for one in rows(bench, artifact) if one.kind == "oru"][-1]
    assert b"PH0002" in bytes(oru.message) and b"PH0001" not in bytes(oru.message)


def test_two_patients_under_one_study_are_not_analysed(bench):
    bench.receive()
    bench.receive(PatientID="PH0002")
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    assert last_assessment(bench).reason.code is ReasonCode.CONFLICTING_PATIENTS
    with bench.store.read() as connection:
        keys = [alarm.key.split("/")[0] for alarm in watch.alarms(connection)]
    assert "conflict" in keys


def test_nothing_of_an_older_revision_waits_beside_a_newer_one_that_has_less(bench):
    bench.receive()
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    bench.receive(PatientID="PH0002")
    analyse(bench, Effusion=0.8)
    sum_up(bench, 40)
    states = {(d.revision, d.kind): d.state for d in rows(bench, delivery)}
    assert states[1, "heatmap"] == DeliveryState.SUPERSEDED
    assert (2, "heatmap") not in states


def test_without_a_bundle_a_study_still_ends_with_a_reason_on_every_destination(tmp_path, monkeypatch):
    made = Bench(tmp_path / "spool", bundle=tmp_path / "missing")
    monkeypatch.setattr(clock, "now", lambda: moment(0))
    summing_up = SummingUp(made.settings, made.store, ResultObjects(made.settings, made.store, made.site_uid))
    made.receive()
    monkeypatch.setattr(clock, "now", lambda: moment(400))
    assert summing_up.run_once() == 1
    assert last_assessment(made).reason.code is ReasonCode.PROCESSING_FAILED
    assert {one.kind for one in rows(made, delivery)} == {"sr", "oru"}
    made.store.close()


def test_a_study_whose_bundle_is_gone_ends_without_speaking_of_findings(bench):
    bench.receive()
    analyse(bench, Effusion=0.99)
    with bench.store.write() as connection:
        connection.execute(studies.study.update().values(bundle="/nowhere"))
    assert sum_up(bench) == 1
    assert last_assessment(bench).reason.code is ReasonCode.PROCESSING_FAILED


def test_a_late_image_read_by_another_model_has_the_older_ones_read_again(bench, monkeypatch):
    bench.receive()
    analyse(bench, Effusion=0.8)
    sum_up(bench)
    monkeypatch.setattr("tests.agent.builders.MODEL", ModelIdentity("test", "2", "1" * 64))
    bench.receive()
    analyse(bench, Effusion=0.1)
    assert sum_up(bench, 40) == 0
    assert [claim.sop_instance_uid for claim in bench.claim(moment(41))] == ["1.2.3.1.1"]


def test_one_object_that_cannot_be_built_is_an_alarm_and_the_others_go_out(bench, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no report today")

    monkeypatch.setattr("firstread.agent.objects.build_report", broken)
    bench.receive()
    analyse(bench, Effusion=0.8)
    assert sum_up(bench) == 1
    assert {one.kind for one in rows(bench, artifact)} == {"heatmap", "oru"}
    with bench.store.read() as connection:
        (alarm,) = watch.alarms(connection)
    assert "no report today" in alarm.text and alarm.severity == "critical"


def test_a_study_that_cannot_be_summed_up_is_an_alarm_and_the_next_one_goes_on(bench, monkeypatch):
    judge = bench.summing_up.judge

    def broken(study, now):
        if study.identity.study_instance_uid == "1.2.3":
            raise RuntimeError("odd")
        return judge(study, now)

    monkeypatch.setattr(bench.summing_up, "judge", broken)
    bench.receive(study="1.2.3")
    bench.receive(study="1.2.4")
    analyse(bench)
    assert sum_up(bench) == 1
    with bench.store.read() as connection:
        assert studies.find(connection, "1.2.4").state == StudyState.ANALYSED
        assert studies.find(connection, "1.2.3").state == StudyState.RECEIVING
        assert [alarm.key.split("/")[0] for alarm in watch.alarms(connection)] == ["summing-up"]
    monkeypatch.undo()
    bench.set_clock = lambda when: monkeypatch.setattr(clock, "now", lambda: when)
    bench.summing_up._failed.clear()
    assert sum_up(bench, 60) == 1


def test_a_film_that_arrives_while_the_objects_are_built_voids_them(bench, monkeypatch):
    build = ResultObjects.build

    def slow(self, study, assessment, now):
        built = build(self, study, assessment, now)
        bench.receive()
        return built

    bench.receive()
    analyse(bench, Effusion=0.8)
    monkeypatch.setattr(ResultObjects, "build", slow)
    assert sum_up(bench) == 0
    assert rows(bench, result) == [] and rows(bench, delivery) == []
    files = [path for path in (bench.settings.spool / "results").rglob("*") if path.is_file()]
    assert files == []


def test_an_ordered_stat_survives_a_negative_result(bench):
    bench.receive()
    with bench.store.write() as connection:
        studies.set_ordered_priority(
            connection, study_instance_uid="1.2.3", accession_number="", priority=Priority.STAT, now=moment(0)
        )
    analyse(bench)
    sum_up(bench)
    assert last_assessment(bench).priority is Priority.STAT


def test_the_heat_map_is_for_what_raised_the_study(bench):
    bench.receive()
    analyse(bench, Effusion=0.7, Mass=0.99, Pneumothorax=0.65)
    sum_up(bench)
    assert leading_finding(last_assessment(bench)).label == "Pneumothorax"


def test_uids_and_control_ids_are_the_same_when_a_result_is_built_again(bench):
    bench.receive()
    analyse(bench, Effusion=0.8)
    with bench.store.read() as connection:
        study = studies.load(connection, studies.find(connection, "1.2.3"))
    objects = ResultObjects(bench.settings, bench.store, bench.site_uid)
    assessment = bench.summing_up.judge(study, moment(20))
    first, second = (objects.build(study, assessment, moment(20)) for _ in range(2))
    assert [one.identity for one in first] == [one.identity for one in second]
    assert [one.sha256 for one in first] == [one.sha256 for one in second]
    assert all(len(one.identity) <= 64 for one in first)
