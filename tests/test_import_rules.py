"""Who may import whom, and what stays unimported until it is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "integration", "models")
HEAVY = ("torch", "torchvision", "highdicom", "sqlalchemy", "pydicom", "pynetdicom", "onnxruntime", "openvino")
NETWORKS = ("torch", "torchvision", "onnxruntime", "openvino")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter with the contracts of setup.cfg on the package that lies in ``folder``."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return subprocess.run(
        [*command, "--config", str(ROOT / "setup.cfg"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_room_keeps_the_import_rules() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("integration/dicom/back.py", "import firstread.agent.config"),
        ("integration/dicom/sideways.py", "from firstread.models.network import *"),
        ("integration/hl7/database.py", "import sqlalchemy"),
        ("models/back.py", "from firstread.integration.hl7 import escape"),
        ("models/prediction.py", "import numpy"),
    ],
)
def test_import_that_breaks_a_rule_is_found(tmp_path: Path, module: str, line: str) -> None:
    package = tmp_path / "firstread"
    for path in [*ROOT.glob("firstread/*.py"), *(each for room in ROOMS for each in (ROOT / room).rglob("*.py"))]:
        copy = package / path.relative_to(ROOT / "firstread" if path.parent.name == "firstread" else ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = package / module
    broken.write_text(broken.read_text() + f"\n{line}\n" if broken.exists() else f"{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}


def test_a_room_has_one_name_everywhere() -> None:
    folders = (*ROOMS, "tests", "benchmarks", "deploy")
    for path in (each for folder in folders for each in (ROOT / folder).rglob("*.py")):
        wrong = {name for name in imports_of(path) if name.split(".")[0] in ROOMS}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}: write firstread.{min(wrong)}"


def imported_by(statement: str) -> set[str]:
    """Top-level packages in memory after ``statement``, in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["firstread.agent.cli", "firstread.agent.config_check", "firstread.agent.triage"])
def test_module_imports_nothing_heavy(module: str) -> None:
    assert not imported_by(f"import {module}") & set(HEAVY)


def test_help_imports_nothing_heavy() -> None:
    statement = (
        "import sys\nfrom firstread.agent.cli import main\nsys.argv = ['firstread', '--help']\n"
        "import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main()\n"
    )
    assert not imported_by(statement) & set(HEAVY)


@pytest.mark.parametrize("role", ["receive", "web"])
def test_what_is_up_first_loads_no_network(role: str) -> None:
    """The receiver answers before torch, or what else runs a network, is in anybody's memory."""
    statement = f"from firstread.agent.roles import load_libraries; load_libraries({role!r})"
    assert not imported_by(statement) & set(NETWORKS)
