"""Settings: a file and the environment become one frozen object, or a sentence for each problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from firstread.agent.config import (
    DEFAULT_PRIORITIES,
    DicomDestination,
    DicomwebDestination,
    Hl7Destination,
    Settings,
    SettingsError,
    find_settings_file,
    load_settings,
)
from firstread.agent.password import hash_password, password_matches
from firstread.models.findings import PATHOLOGIES
from firstread.models.prediction import Priority

PACS = '[[destinations]]\nname = "PACS"\ntype = "dicom"\nhost = "pacs"\nport = 104\nae_title = "PACS"\n'
RIS = '[[destinations]]\nname = "RIS"\ntype = "hl7"\nhost = "ris"\nport = 2576\n'


def load(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ)


def sentence(folder: Path, text: str, **environ: str) -> str:
    """The only sentence that these settings are refused with."""
    with pytest.raises(SettingsError) as refused:
        load(folder, text, **environ)
    assert len(refused.value.sentences) == 1, refused.value.sentences
    return refused.value.sentences[0]


def test_no_file_gives_a_working_agent_on_this_machine() -> None:
    settings = load_settings(None, {})
    assert (settings.dicom.ae_title, settings.dicom.port, settings.web.host) == ("FIRSTREAD", 11112, "127.0.0.1")
    assert settings.study.max_age_days is None
    assert settings.database_url == f"sqlite:///{Path.cwd() / 'firstread-data' / 'firstread.sqlite3'}"


def test_file_and_environment_are_read_and_the_environment_wins(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[dicom]\nae_title = "FILE"\nport = 4242\n',
        FIRSTREAD_DICOM__AE_TITLE="ENVIRONMENT",
        FIRSTREAD_WORKLIST__ENABLED="false",
        FIRSTREAD_DICOM__ALLOWED_CALLING_AE='["A", "B"]',
        FIRSTREAD_TRIAGE__FINDINGS__PLEURAL_THICKENING__THRESHOLD="0.4",
        FIRSTREAD_TEST_DATA="/not/a/setting",
        FIRSTREAD_WEB__PORT="",
    )
    assert (settings.dicom.ae_title, settings.dicom.port, settings.web.port) == ("ENVIRONMENT", 4242, 8080)
    assert settings.worklist.enabled is False
    assert settings.dicom.allowed_calling_ae == ("A", "B")
    assert settings.triage.findings["Pleural_Thickening"].threshold == 0.4


def test_environment_reaches_a_destination_by_name_and_by_position(tmp_path: Path) -> None:
    settings = load(
        tmp_path, PACS, FIRSTREAD_DESTINATIONS__PACS__HOST="archive", FIRSTREAD_DESTINATIONS__0__PORT="11113"
    )
    assert (settings.destinations[0].host, settings.destinations[0].port) == ("archive", 11113)
    text = sentence(tmp_path, PACS, FIRSTREAD_DESTINATIONS__RIS__HOST="ris")
    assert text == "FIRSTREAD_DESTINATIONS__RIS__HOST: destinations has no 'ris' (there is: PACS)"


def test_settings_never_change_after_start(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    with pytest.raises(ValidationError):
        settings.dicom.port = 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[dicom]\nae_titel = "X"', "[dicom] ae_titel is not a setting: did you mean [dicom] ae_title?"),
        ("[studi]\nquiet_period_s = 3", "[studi] is not a section: did you mean [study]?"),
        (
            "[dicom]\nquiet_period_s = 3",
            "[dicom] quiet_period_s is not a setting: did you mean [study] quiet_period_s?",
        ),
        (RIS + 'ae_title = "X"', "number 1 (RIS) ae_title is not a setting of type hl7, only of dicom: remove it"),
        ("[triage.findings.Mass]\npriorty = 'STAT'", "[triage.findings.Mass] priorty is not a setting: did you mean"),
        ("[triage.findings.Flu]\npriority = 'STAT'", "'Flu' is not a finding; the findings are Atelectasis, "),
        ("[worklist.longest_wait_min]\nSTATT = 3", "[worklist.longest_wait_min] STATT is not a setting: did you mean"),
    ],
)
def test_unknown_key_is_an_error_that_names_the_nearest_known_one(tmp_path: Path, text: str, said: str) -> None:
    assert said in sentence(tmp_path, text)


def test_unknown_key_in_the_environment_is_an_error_too(tmp_path: Path) -> None:
    assert "did you mean [dicom] ae_title?" in sentence(tmp_path, "", FIRSTREAD_DICOM__AE_TITEL="X")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[dicom]\nport = 70000", "[dicom] port = 70000: must be less than or equal to 65535"),
        ("[web]\nport = 0", "[web] port = 0: must be greater than or equal to 1"),
        ('[dicom]\nae_title = "SEVENTEEN LETTERS"', "an AE title has 1 to 16 characters"),
        ('[dicom]\nae_title = "A\\\\B"', "no backslash"),
        ('[study]\nquiet_period_s = "soon"', "[study] quiet_period_s = 'soon': give a number"),
        ("[study]\nquiet_period_s = 400", "max_open_s must not be less than quiet_period_s"),
        ("[web]\nport = 11112", "[dicom] port and [web] port are both 11112"),
        ("[dicom]\nport = 2575", "[dicom] port and [worklist] mllp_port are both 2575"),
        ('[web]\nhost = "0.0.0.0"', "set username and password_file"),
        ('[web]\nhost = "ris.example.org"', "set username and password_file"),
        ('[web]\npassword = "a"\npassword_hash = "scrypt$"', "give password or password_hash, not both"),
        ('[web]\npassword_hash = "5f4dcc3b"', "is not a hash that `firstread password` wrote"),
        (PACS + PACS, "2 [[destinations]] are named 'pacs': give each its own name"),
        (PACS.replace('"PACS"', '"worklist"', 1), "is named 'worklist', the built-in list"),
        (PACS.replace('ae_title = "PACS"', ""), "number 1 (PACS) ae_title is missing"),
        (PACS + 'sends = ["oru"]', "a dicom or dicomweb destination can get ['sr', 'heatmap']"),
        (RIS + 'sends = ["sr"]', "an hl7 destination ['oru']"),
        (RIS + 'priority_place = ["OBR-99"]', "priority_place = 'OBR-99': a place is one of"),
        (RIS + 'on_ack = {AA = "retry"}', "on_ack: AA is none of AE, AR, CE, CR"),
        (RIS + 'character_set = "EBCDIC"', "use UNICODE UTF-8, or 8859/1"),
        (RIS + 'on_ack = {AR = "ignore"}', "must be 'retry', 'reject' or"),
        (PACS.replace('"dicom"', '"dimse"'), 'type must be "dicom", "dicomweb" or "hl7", not \'dimse\''),
        (PACS.replace('type = "dicom"', ""), "number 1 (PACS) has no type"),
        (PACS.replace('host = "pacs"', 'host = "http://pacs"'), "without spaces, scheme or port"),
        (PACS + 'tls_key_file = "k.pem"', "tls_... files are given but tls is false"),
        ('[dicom]\nallowed_addresses = ["10.0.0.0/99"]', "10.0.0.0/99"),
        (
            '[[triage.overrides]]\nfindings = {Mass = {priority = "none"}}',
            "name the station, calling_ae or institution",
        ),
        ('[[senders]]\ncalling_ae = "A"\n[[senders]]\ncalling_ae = "A"', "2 [[senders]] have the calling_ae 'A'"),
        ("[triage.findings.Mass]\npriority = 'ROUTINE'", "one of STAT, URGENT, none"),
        ("dicom = 3", "[dicom] = 3: it is a section: put its keys below it"),
        ("[dicom\n", "is not valid TOML"),
    ],
)
def test_wrong_value_is_a_sentence_that_says_where_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    assert said in sentence(tmp_path, text)


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, '[dicom]\nport = 0\nae_titel = "X"\n[web]\nport = -1\n')
    assert len(refused.value.sentences) == 3


def test_missing_unreadable_and_misencoded_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist: write one with 'firstread init"):
        load_settings(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'[site]\nname = "Universit\xe4t"\n')
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        load_settings(tmp_path / "latin.toml", {})


def test_file_saved_by_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes('[site]\r\nname = "Zürich"\r\n'.encode("utf-8-sig"))
    assert load_settings(tmp_path / "site.toml", {}).site.name == "Zürich"


def test_relative_paths_count_from_the_file_and_those_of_the_environment_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert load(tmp_path, '[storage]\npath = "spool"').spool == tmp_path / "spool"
    assert load(tmp_path, "", FIRSTREAD_STORAGE__PATH="spool").spool == here / "spool"
    assert load(tmp_path, '[analysis]\nbundle = "./mine"').analysis.bundle == str(tmp_path / "mine")
    assert load(tmp_path, '[analysis]\nbundle = "reference"').analysis.bundle == "reference"


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("open sesame\n")
    (tmp_path / "url").write_text("postgresql+psycopg://agent:hunter2@db/firstread\n")
    text = '[web]\nhost = "0.0.0.0"\npassword_file = "word"\n[database]\nurl_file = "url"\n'
    settings = load(tmp_path, text)
    assert settings.web.accepts("firstread", "open sesame")
    assert settings.database_url == "postgresql+psycopg://agent:hunter2@db/firstread"
    shown = settings.masked()
    assert shown["web"]["password"] == "********"
    assert shown["database"]["url"] == "postgresql+psycopg://agent:********@db/firstread"
    for secret in ("sesame", "hunter2"):
        assert secret not in str(shown)
        assert secret not in repr(settings)


def test_secret_file_that_cannot_be_read_is_named_and_a_secret_given_twice_refused(tmp_path: Path) -> None:
    text = '[web]\npassword_file = "nowhere"\n'
    assert "password_file" in sentence(tmp_path, text)
    assert "No such file" in sentence(tmp_path, text)
    (tmp_path / "word").write_text("a")
    assert "both password and password_file" in sentence(tmp_path, '[web]\npassword = "b"\npassword_file = "word"\n')


def test_environment_replaces_a_secret_whichever_way_the_file_gave_it(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("from the file")
    settings = load(tmp_path, '[web]\npassword_file = "word"\n', FIRSTREAD_WEB__PASSWORD="from outside")
    assert settings.web.accepts("firstread", "from outside")


def test_wrong_secret_is_refused_without_repeating_it(tmp_path: Path) -> None:
    assert "hunter2" not in sentence(tmp_path, '[web]\npassword_hash = "hunter2"\n')


def test_login_by_hash_accepts_the_password_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, f'[web]\nhost = "0.0.0.0"\npassword_hash = "{hash_password("Grüße")}"\n')
    assert settings.web.needs_login
    assert settings.web.accepts("firstread", "Grüße")
    assert not settings.web.accepts("firstread", "grüße")
    assert not settings.web.accepts("someone", "Grüße")
    assert not password_matches("Grüße", "scrypt$1$2$3")
    assert not load_settings(None, {}).web.accepts("firstread", "")


def test_built_in_list_is_one_more_destination_when_it_is_enabled(tmp_path: Path) -> None:
    settings = load(tmp_path, PACS + RIS + '[worklist]\nmllp_host = "0.0.0.0"\nmllp_port = 2600\n')
    assert [each.name for each in settings.all_destinations] == ["PACS", "RIS", "worklist"]
    pacs, ris, builtin = settings.all_destinations
    assert isinstance(pacs, DicomDestination)
    assert isinstance(ris, Hl7Destination)
    assert (pacs.sends, ris.sends, builtin.sends) == (("sr", "heatmap"), ("oru",), ("oru",))
    assert (builtin.host, builtin.port, builtin.hold) == ("127.0.0.1", 2600, False)
    assert settings.destination("pacs") is pacs
    assert load(tmp_path, PACS + "[worklist]\nenabled = false").all_destinations == (pacs,)


def test_every_finding_has_a_default_priority_and_a_site_can_change_it(tmp_path: Path) -> None:
    assert set(DEFAULT_PRIORITIES) == set(PATHOLOGIES)
    text = "[triage.findings.'pleural thickening']\npriority = 'urgent'\n[triage.findings.Mass]\npriority = 'none'\n"
    triage = load(tmp_path, text).triage
    assert triage.priority_of("Pleural_Thickening") is Priority.URGENT
    assert triage.priority_of("Mass") is None
    assert triage.priority_of("Pneumothorax") is Priority.STAT


def test_settings_file_is_found_where_it_was_named_or_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_settings_file({"FIRSTREAD_CONFIG": "/elsewhere.toml"}) == Path("/elsewhere.toml")
    (tmp_path / "firstread.toml").write_text("")
    assert find_settings_file({}) == Path("firstread.toml")


@pytest.mark.parametrize(
    "address", ["viewer.example.org/{study}", "https://viewer.example.org/", "javascript:alert({study})"]
)
def test_a_viewer_s_address_is_one_and_names_the_study(address: str) -> None:
    with pytest.raises(ValidationError, match="viewer_url"):
        Settings.model_validate({"web": {"viewer_url": address}})
    Settings.model_validate({"web": {"viewer_url": "https://viewer.example.org/v?StudyInstanceUIDs={study}"}})


VNA = '[[destinations]]\nname = "VNA"\ntype = "dicomweb"\nurl = "https://vna/dicom-web/"\n'
OAUTH2 = 'oauth2_token_url = "https://id/t"\noauth2_client_id = "a"\noauth2_client_secret_file = "s"\n'


def test_a_dicomweb_destination_takes_its_token_from_the_environment_and_hides_it(tmp_path: Path) -> None:
    settings = load(tmp_path, VNA + 'token_file = "t"\n', FIRSTREAD_DESTINATIONS__VNA__TOKEN="hush")
    (vna,) = settings.destinations
    assert isinstance(vna, DicomwebDestination) and vna.url == "https://vna/dicom-web" and vna.tls
    assert vna.token is not None and vna.token.get_secret_value() == "hush" and vna.token_file is None
    assert "hush" not in str(settings.masked())
    (vna,) = load(tmp_path, VNA + OAUTH2).destinations
    assert isinstance(vna, DicomwebDestination) and vna.oauth2_client_secret_file == tmp_path / "s"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ('token = "a"\ntoken_file = "b"', "both token and token_file are given: keep one"),
        ('oauth2_client_id = "a"', "oauth2_token_url, oauth2_client_id and its secret go together"),
        ('tls_key_file = "k"', "tls_certificate_file and tls_key_file go together"),
        ('host = "h"', "host is not a setting of type dicomweb, only of dicom"),
        ('url = "http://u:p@h"', "name and password do not belong into the address"),
    ],
)
def test_what_a_dicomweb_destination_cannot_mean_is_said(tmp_path: Path, added: str, said: str) -> None:
    text = VNA.replace('url = "https://vna/dicom-web/"\n', "") if added.startswith("url") else VNA
    told = sentence(tmp_path, text + added + "\n")
    assert said in told and "u:p" not in told
