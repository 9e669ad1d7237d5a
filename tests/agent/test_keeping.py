"""What is kept: the spool compared with the database, backup and restore, legal hold, a disk that fills."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from firstread.agent import care as care_module
from firstread.agent import inspection
from firstread.agent.backup import DATABASE, MANIFEST, BackupError, back_up, check_backup, restore
from firstread.agent.care import Care
from firstread.agent.cli import app
from firstread.agent.inspection import after_unclean_end, inspect, report_faults, set_aside
from firstread.agent.spool import films_there, note_clean_end, prepare, take_spool
from firstread.agent.store import deliveries, overdue, studies
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import site_uid
from firstread.agent.store.tables import instance
from tests.agent.builders import moment, settings_at
from tests.agent.ward import DAY, Ward
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def ward(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    made = Ward(tmp_path / "spool", bundle, monkeypatch)
    yield made
    made.store.close()


def look(ward: Ward, **options: float):
    return inspect(ward.settings, ward.store, **{"settled_s": -1, **options})


def test_a_spool_as_it_should_be_is_called_sound(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    ward.receive(study="1.2.4")
    found = look(ward)
    assert found.sound and found.films == 2 and found.results >= 1


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda film: film.unlink(), "is missing"),
        (lambda film: film.write_bytes(film.read_bytes()[:-1]), "bytes instead of"),
        (lambda film: film.write_bytes(film.read_bytes()[:-1] + b"\x01"), "SHA-256 differs"),
        (lambda film: film.write_bytes(bytes(200) + film.read_bytes()[200:]), "header is damaged"),
    ],
)
def test_a_film_that_is_gone_or_changed_is_named_with_its_study(ward: Ward, harm, problem: str) -> None:
    ward.receive(study="1.2.3")
    harm(ward.file_of("1.2.3"))
    (fault,) = look(ward).faults
    assert problem in fault.problem and fault.study_instance_uid == "1.2.3" and fault.matters
    assert "never analysed" in fault.remedy
    report_faults(ward.store, look(ward))
    alarm = ward.alarms()["spool/lost"]
    assert "1.2.3" in alarm.text and alarm.severity == "critical"


def test_the_alarm_ends_when_the_film_was_sent_again(ward: Ward) -> None:
    film = ward.receive(study="1.2.3", sop="1.2.3.9")
    ward.file_of("1.2.3").unlink()
    ward.care.check_spool()
    assert "spool/lost" in ward.alarms()
    again = ward.arrive(study="1.2.3", sop="1.2.3.9")
    assert again.sha256 == film.sha256
    ward.intake.take(again)
    Care(ward.settings, ward.store).check_spool()
    assert "spool/lost" not in ward.alarms()


def test_a_file_that_no_row_names_is_set_aside_and_a_young_one_is_left(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    stray = ward.settings.spool / "films" / "ab" / "abcdef.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"a film between rename and commit")
    assert inspect(ward.settings, ward.store).unlisted == ()
    os.utime(stray, (0, 0))
    found = inspect(ward.settings, ward.store)
    assert found.unlisted == ("films/ab/abcdef.dcm",) and not found.sound
    assert set_aside(ward.settings, ward.store, found.unlisted) == 1
    kept = ward.settings.spool / "unlisted" / "films-ab-abcdef.dcm"
    assert kept.read_bytes() == b"a film between rename and commit"
    assert look(ward).sound and ward.file_of("1.2.3").exists()


def test_after_an_unclean_end_a_film_without_a_row_goes_aside_however_young_and_a_row_without_a_film_is_told(
    ward: Ward,
) -> None:
    ward.receive(study="1.2.3")
    ward.receive(study="1.2.4")
    stray = ward.settings.spool / "films" / "ab" / "abcdef.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"a film between rename and commit")
    there = films_there(ward.settings.spool)
    coming = stray.with_name("coming.dcm")
    coming.write_bytes(b"a film that the new receiver has renamed and not committed yet")
    ward.file_of("1.2.4").unlink()
    after_unclean_end(ward.settings, ward.store, there)
    assert (ward.settings.spool / "unlisted" / "films-ab-abcdef.dcm").exists() and not stray.exists()
    assert coming.exists() and ward.file_of("1.2.3").exists()
    assert "1.2.4" in ward.alarms()["spool/lost"].text


def test_the_spool_remembers_that_its_agent_did_not_end_gracefully(tmp_path: Path) -> None:
    prepare(tmp_path)
    lock, left_open = take_spool(tmp_path)
    assert not left_open
    os.close(lock)  # as a kill does
    lock, left_open = take_spool(tmp_path)
    assert left_open
    note_clean_end(lock)
    os.close(lock)
    lock, left_open = take_spool(tmp_path)
    os.close(lock)
    assert not left_open


def test_a_film_recorded_while_we_look_is_not_taken_for_a_stray(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    films = inspection._films

    def a_moment_later(store: Store):
        # Its file lies there already when the folder is read, its row comes when the rows have been read.
        yield from films(store)
        row = ward.receive(study="1.2.9", sop="1.2.9.1")
        assert row.study_instance_uid == "1.2.9"
        ward.file_of("1.2.9").rename(promised)
        with ward.store.write() as connection:
            connection.execute(update(instance).values(path=str(promised.relative_to(ward.settings.spool))))

    promised = ward.settings.spool / "films" / "ab" / "promised.dcm"
    promised.parent.mkdir(exist_ok=True)
    promised.write_bytes(b"")
    monkeypatch.setattr(inspection, "_films", a_moment_later)
    assert look(ward).unlisted == ()


def test_verify_says_what_is_wrong_and_repairs_what_it_may(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    config = write_config(ward)
    run = CliRunner().invoke
    assert run(app, ["verify", "-c", config]).exit_code == 0
    stray = ward.settings.spool / "results" / "ab" / "x.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    os.utime(stray, (0, 0))
    answer = run(app, ["verify", "-c", config])
    assert answer.exit_code == 1 and "results/ab/x.dcm" in answer.output and "--repair" in answer.output
    assert run(app, ["verify", "-c", config, "--repair"]).exit_code == 0
    ward.file_of("1.2.3").unlink()
    as_json = run(app, ["verify", "-c", config, "--json", "--quick"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["faults"][0]["study_instance_uid"] == "1.2.3"


def test_verify_leaves_young_files_alone_only_while_an_agent_runs(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    young = ward.settings.spool / "films" / "ab" / "young.dcm"
    young.parent.mkdir(exist_ok=True)
    young.write_bytes(b"a film whose row may be on its way")
    config, run = write_config(ward), CliRunner().invoke
    lock, _ = take_spool(ward.settings.spool)
    assert run(app, ["verify", "-c", config]).exit_code == 0
    os.close(lock)
    answer = run(app, ["verify", "-c", config])
    assert answer.exit_code == 1 and "films/ab/young.dcm" in answer.output
    os.close(take_spool(ward.settings.spool)[0])


def write_config(ward: Ward) -> str:
    path = ward.settings.spool.parent / "site.toml"
    path.write_text(f'[storage]\npath = "{ward.settings.spool}"\nreserve_mb = 0\n')
    return str(path)


def test_a_backup_is_restored_bit_for_bit_and_the_agent_goes_on(ward: Ward, tmp_path: Path) -> None:
    film = ward.ended_study("1.2.3", Pneumothorax=0.99)
    ward.receive(study="1.2.4")
    kept = back_up(ward.settings, tmp_path / "backup")
    assert kept.missing == () and stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    assert check_backup(tmp_path / "backup").files == kept.files
    ward.receive(study="1.2.5")  # after the backup: sent again by the PACS

    there = settings_at(tmp_path / "elsewhere")
    shutil.rmtree(there.spool)
    restore(there, tmp_path / "backup")
    store = Store(there.database_url)
    assert site_uid(store) == ward.site_uid
    assert inspect(there, store, settled_s=-1).sound
    with store.read() as connection:
        assert studies.find(connection, "1.2.3").state == "analysed"
        assert studies.find(connection, "1.2.5") is None
        row = studies.images_of(connection, studies.find(connection, "1.2.3").id)[0]
        assert (there.spool / row.path).read_bytes() == film.read_bytes()
    with store.write() as connection:  # what was pending is still to be sent, under the same identity
        held = deliveries.claim(connection, "pacs", on_hold=False, owner="o", lease_s=60, now=moment(99))
    assert held is not None
    store.close()


def test_a_backup_is_whole_while_films_come_in_and_go(ward: Ward, tmp_path: Path) -> None:
    for number in range(8):
        ward.ended_study(f"1.2.{number}", 60 * number)
    ward.deliver_all(900)
    ward.at(1000)
    first, over = threading.Event(), threading.Event()

    def work() -> None:
        number = 100
        while not over.is_set():
            ward.receive(study=f"1.2.{number}")
            first.set()
            number += 1

    working = threading.Thread(target=work)
    working.start()
    try:
        assert first.wait(60)
        kept = back_up(ward.settings, tmp_path / "backup")
    finally:
        over.set()
        working.join()
    there = settings_at(tmp_path / "elsewhere")
    shutil.rmtree(there.spool)
    restore(there, tmp_path / "backup")
    store = Store(there.database_url)
    found = inspect(there, store, settled_s=-1)
    assert kept.missing == () and found.sound and found.films >= 8
    store.close()


def test_a_postgresql_database_is_not_backed_up_but_told_how(tmp_path: Path) -> None:
    settings = settings_at(tmp_path / "spool", database={"url": "postgresql+psycopg://firstread@127.0.0.1:1/x"})
    with pytest.raises(BackupError, match=r"PostgreSQL.*pg_dump first and copy \[storage\] path after it"):
        back_up(settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="pg_dump"):
        restore(settings, tmp_path / "backup")


def test_a_backup_names_what_was_not_there(ward: Ward, tmp_path: Path) -> None:
    ward.ended_study("1.2.3")
    gone = ward.file_of("1.2.3")
    gone.unlink()
    kept = back_up(ward.settings, tmp_path / "backup")
    assert kept.missing == (str(gone.relative_to(ward.settings.spool)),)


def test_a_changed_backup_is_not_restored(ward: Ward, tmp_path: Path) -> None:
    ward.ended_study("1.2.3")
    back_up(ward.settings, tmp_path / "backup")
    film = next((tmp_path / "backup" / "films").rglob("*.dcm"))
    film.write_bytes(film.read_bytes()[:-1] + b"\x07")
    there = settings_at(tmp_path / "elsewhere")
    shutil.rmtree(there.spool)
    with pytest.raises(BackupError, match="missing or changed"):
        restore(there, tmp_path / "backup")
    assert not (there.spool / DATABASE).exists()


def test_restore_touches_nothing_that_is_there(ward: Ward, tmp_path: Path) -> None:
    ward.ended_study("1.2.3")
    back_up(ward.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="not empty"):
        restore(ward.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="exists"):
        back_up(ward.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="no backup"):
        check_backup(tmp_path)


def test_a_manifest_that_leads_out_of_the_folder_is_refused(ward: Ward, tmp_path: Path) -> None:
    ward.ended_study("1.2.3")
    back_up(ward.settings, tmp_path / "backup")
    manifest = tmp_path / "backup" / MANIFEST
    content = json.loads(manifest.read_text())
    content["files"]["../site.toml"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(BackupError, match="leads out"):
        check_backup(tmp_path / "backup")


def test_a_full_disk_leaves_no_backup_that_looks_whole(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.ended_study("1.2.3")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackupError, match="No space left"):
        back_up(ward.settings, tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_backup_and_restore_are_commands(ward: Ward, tmp_path: Path) -> None:
    ward.ended_study("1.2.3")
    run = CliRunner().invoke
    made = run(app, ["backup", str(tmp_path / "b"), "-c", write_config(ward)])
    assert made.exit_code == 0, made.output
    assert run(app, ["restore", str(tmp_path / "b"), "--check", "-c", write_config(ward)]).exit_code == 0
    other = tmp_path / "other.toml"
    other.write_text(f'[storage]\npath = "{tmp_path / "new"}"\nreserve_mb = 0\n')
    back = run(app, ["restore", str(tmp_path / "b"), "-c", str(other)])
    assert back.exit_code == 0 and "kept once" in back.output, back.output
    again = run(app, ["restore", str(tmp_path / "b"), "-c", str(other)])
    assert again.exit_code == 1 and "not empty" in again.output
    assert run(app, ["verify", "-c", str(other)]).exit_code == 0


def test_retention_leaves_what_is_under_legal_hold(ward: Ward) -> None:
    held, other = ward.ended_study("1.2.3"), ward.ended_study("1.2.4", 60)
    ward.deliver_all(90)
    run = CliRunner().invoke
    assert run(app, ["legal-hold", "1.2.3", "-c", write_config(ward)]).exit_code == 1
    assert run(app, ["legal-hold", "1.2.3", "--reason", "case 7", "-c", write_config(ward)]).exit_code == 0
    ward.at(31 * DAY)
    assert ward.care.retention() == 1 and held.exists() and not other.exists()
    assert run(app, ["legal-hold", "1.2.3", "--release", "-c", write_config(ward)]).exit_code == 0
    assert ward.care.retention() == 1 and not held.exists()


def test_above_its_share_of_the_disk_the_oldest_finished_films_go(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [ward.ended_study(f"1.2.{number}", 60 * number) for number in range(3)]
    ward.deliver_all(600)
    ward.receive(study="1.2.9")
    usage = shutil.disk_usage(ward.settings.spool)
    monkeypatch.setattr(care_module, "PURGE_WHEN_FULL", 1)
    monkeypatch.setattr(
        care_module.shutil,
        "disk_usage",
        lambda _: usage._replace(used=85 if films[1].exists() else 75, free=15 if films[1].exists() else 25),
    )
    storage = ward.settings.storage.model_copy(update={"max_disk_percent": 80})
    ward.at(700)
    assert Care(ward.settings.model_copy(update={"storage": storage}), ward.store).retention() == 2
    assert [film.exists() for film in films] == [False, False, True] and ward.file_of("1.2.9").exists()


def test_what_was_set_aside_goes_when_its_days_are_over(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    stray = ward.settings.spool / "films" / "ab" / "stray.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"a film between rename and commit")
    os.utime(stray, (0, 0))
    set_aside(ward.settings, ward.store, ("films/ab/stray.dcm",))
    kept = ward.settings.spool / "unlisted" / "films-ab-stray.dcm"
    real = kept.stat().st_ctime
    begins = real - moment().at.timestamp()  # the test's clock and the disk's
    ward.at(begins + 29 * DAY)
    ward.care.retention()
    assert kept.exists(), "its days count from the day it was set aside"
    ward.at(begins + 31 * DAY)
    ward.care.retention()
    assert not kept.exists()


@pytest.mark.parametrize("since", ["opened again", "held"])
def test_a_film_whose_study_came_to_life_between_look_and_deletion_stays(ward: Ward, since: str) -> None:
    film = ward.ended_study("1.2.3")
    ward.deliver_all()
    with ward.store.write() as connection:
        rows = overdue.films_to_purge(connection, moment(31 * DAY).at, limit=5)
        key = studies.find(connection, "1.2.3").id
        if since == "held":
            studies.set_legal_hold(connection, key, "case 7", "t", moment(1))
        else:
            studies.reopen(connection, key, "a late image", "t", moment(1))
        assert len(rows) == 1 and overdue.mark_purged(connection, rows, actor="t", now=moment(2)) == []
    assert ward.file_of("1.2.3") == film
