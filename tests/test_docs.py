"""What the pages name is there: files, commands, settings, metrics; and what programs may read is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from firstread.agent.config import Hl7Destination, Settings
from firstread.agent.config_sentences import models_in

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def quoted(page: Path) -> list[str]:
    """What stands between backticks, and each line of a code block."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    plain = re.sub(r"(?ms)^```\w*\n.*?^```", "", text)
    return [*re.findall(r"`([^`\n]+)`", plain), *(line for block in blocks for line in block.splitlines())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for word in quoted(page):
        if re.fullmatch(r"(agent|integration|models|tests|deploy|docs|benchmarks)/[\w./-]+", word):
            path = ROOT / word
            assert path.exists() or path.with_suffix(".py").exists(), f"{page.name} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> dict[str, set[str]]:
    """Every command of ``firstread`` with its options."""
    from firstread.agent.cli import app

    found: dict[str, set[str]] = {}

    def walk(name: str, command: object) -> None:
        found[name] = {option for each in getattr(command, "params", []) for option in each.opts}
        for key, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {key}".strip(), inner)

    walk("", get_command(app))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    known = commands()
    for line in quoted(page):
        for call in re.findall(r"(?:^|bin/)firstread ([a-z][^#|;&`]*)", line):
            words = call.split()
            name = max((key for key in known if words[: len(key.split())] == key.split()), key=len)
            assert name, f"{page.name}: firstread {call}"
            used = {word for word in words if re.fullmatch(r"-c|--[a-z-]+", word)}
            assert used <= known[name] | {"--help"}, f"{page.name}: firstread {name} has no {used - known[name]}"


def keys() -> Iterator[str]:
    models = [Settings]
    while models:
        for name, field in models.pop().model_fields.items():
            yield name
            yield f"{name}_file"
            models += [each for each in models_in(field.annotation) if each not in models]
    yield from Hl7Destination.model_fields


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = set(keys())
    for word in quoted(page):
        for section, key in re.findall(r"\[(\w+)\] ([a-z_]+)", word):
            assert {section, key} <= known, f"{page.name} names [{section}] {key}"


def test_every_metric_that_the_guide_names_is_served() -> None:
    source = (ROOT / "agent" / "web" / "metrics.py").read_text(encoding="utf-8")
    for word in quoted(ROOT / "docs" / "administrator.md"):
        for metric in re.findall(r"firstread_[a-z_]+", word):
            assert f'"{metric}"' in source, metric


def keys_of(source: Path) -> set[str]:
    """The keys of every dictionary that a module writes out."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = {key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    return {key.value for key in found if isinstance(key, ast.Constant) and isinstance(key.value, str)}


@pytest.mark.parametrize("module", ["listing.py", "commands/alarms.py", "commands/reading.py"])
def test_the_guide_names_every_field_that_json_has(module: str) -> None:
    fields = keys_of(ROOT / "agent" / module)
    assert len(fields) > 5
    missing = fields - set(quoted(ROOT / "docs" / "administrator.md"))
    assert not missing, f"docs/administrator.md does not say what {sorted(missing)} are"


def test_the_guide_names_every_command() -> None:
    guide = (ROOT / "docs" / "administrator.md").read_text(encoding="utf-8")
    for name in filter(None, commands()):
        *group, last = name.split()
        assert f"`firstread {name}" in guide or (group and f"`{last}`" in guide), name


def test_the_page_of_faults_names_every_status_that_a_sender_can_be_told() -> None:
    from firstread.integration.dicom import status

    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    table = text.split("## What a sender is told")[1].split("## ")[0]
    named = {int(code, 16) for code in re.findall(r"(?m)^\| ([0-9A-F]{4})\b", table)}
    failures = [one for one in vars(status).values() if isinstance(one, type) and issubclass(one, status.StoreFailure)]
    assert len({one.code for one in failures}) == 3
    assert named == {status.SUCCESS.code, *(one.code for one in failures)}
    for source in (ROOT / "integration" / "dicom").glob("*.py"):
        answered = re.findall(r"StoreStatus\(0x([0-9A-F]{4})", source.read_text(encoding="utf-8"))
        assert {int(code, 16) for code in answered} <= named, source.name


def test_readme_names_no_set_up_but_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^    (make \w+)$", text) == ["make demo", "make test"]
    assert "pip install" not in text
