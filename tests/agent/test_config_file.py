"""The file that ``firstread init`` writes, and the reference page: both say what is in force."""

from __future__ import annotations

import re
from pathlib import Path

from firstread.agent.config import Settings, load_settings
from firstread.agent.settings_file import render_in_force, render_reference, render_template

ROOT = Path(__file__).parents[2]


def test_written_file_loads_and_changes_nothing_but_the_age_limit(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(render_template(), encoding="utf-8")
    settings = load_settings(path, {})
    assert settings.study.max_age_days == 7
    assert settings.spool == tmp_path / "firstread-data"
    study = settings.study.model_copy(update={"max_age_days": None})
    assert settings.model_copy(update={"study": study, "storage": Settings().storage}) == Settings()


def test_every_commented_default_is_the_default_in_force(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    text, changed = re.subn(r"(?m)^#(?=\S)", "", render_template())
    assert changed > 80
    path.write_text(text, encoding="utf-8")
    settings, default = load_settings(path, {}), Settings()
    for section in ("dicom", "database", "analysis", "site", "report", "web", "worklist"):
        assert getattr(settings, section) == getattr(default, section), section
    for label in settings.triage.findings:
        assert settings.triage.priority_of(label) == default.triage.priority_of(label)
    assert {one.type for one in settings.destinations} == {"dicom", "dicomweb", "hl7"}
    for destination in settings.destinations:
        for key, field in type(destination).model_fields.items():
            if not field.is_required():
                assert getattr(destination, key) == field.default, key


def test_every_key_stands_in_the_written_file() -> None:
    text = render_template()
    for name, field in Settings.model_fields.items():
        assert name in text
        for key in getattr(type(field.default), "model_fields", {}):
            assert re.search(rf"\b{key}\b|{key}_file", text), f"[{name}] {key}"


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == render_reference(), "run: python -m firstread.agent.settings_file > docs/settings.md"


def test_what_is_in_force_is_shown_as_a_file_that_means_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(re.sub(r"(?m)^#(?=\S)", "", render_template()), encoding="utf-8")
    settings = load_settings(first, {"FIRSTREAD_WEB__PASSWORD": "hunter2"})
    second.write_text(render_in_force(settings), encoding="utf-8")
    shown = load_settings(second, {})
    assert "hunter2" not in second.read_text(encoding="utf-8")
    assert shown.masked() == settings.masked()
