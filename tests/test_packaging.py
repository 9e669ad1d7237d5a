"""What is built: a wheel and a source archive that carry every room, its data, and no generic name."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "integration", "models")


def tracked(*folders: str) -> list[PurePosixPath]:
    """Files of these folders that git knows; all that lie there where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, timeout=60)
    if listed.returncode == 0:
        return [PurePosixPath(name) for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return [PurePosixPath(path.relative_to(ROOT).as_posix()) for path in found if "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's tracked files, symbolic links kept, as a fresh clone has them."""
    folder = tmp_path_factory.mktemp("clone")
    for name in tracked("."):
        source, copy = ROOT / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        else:
            copy.write_bytes(source.read_bytes())
    return folder


def build(clone: Path, kind: str, out: Path) -> Path:
    """Builds ``wheel`` or ``sdist`` by the backend that pip would call, without network."""
    code = f"import sys; from setuptools import build_meta as b; print(b.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=clone, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(clone, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_wheel_carries_every_room_and_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in tracked(*ROOMS):
        assert f"firstread/{path}" in names, f"{path} is missing: name it in setup.cfg, package_data"


@pytest.mark.slow
def test_wheel_takes_no_name_but_its_own(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"firstread"}


@pytest.mark.slow
def test_installed_wheel_is_imported_from_its_own_files(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    # Dependencies come from this environment: what is asked is whether our own files are whole.
    venv.create(home, system_site_packages=False, with_pip=False)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(python),
        "install",
        "--quiet",
    ]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    mine = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(mine + "\n")
    code = (
        "import firstread.agent.config, firstread.models.findings, firstread.integration, firstread;"
        "print(firstread.agent.config.__file__)"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(site)
    done = subprocess.run([home / "bin" / "firstread", "--help"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_source_archive_builds_the_same_wheel(clone: Path, wheel: Path, tmp_path: Path) -> None:
    archive = build(clone, "sdist", tmp_path)
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    source = next((tmp_path / "source").iterdir())
    again = build(source, "wheel", tmp_path)
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_editable_install_leads_back_to_this_checkout() -> None:
    import firstread
    import firstread.agent.config
    import firstread.models.findings

    installed = [path for each in distributions(name="firstread") for path in each.files or ()]
    if not any(path.name.startswith("__editable__") for path in installed):
        pytest.skip("firstread is installed as a wheel here")
    assert Path(firstread.__file__).is_relative_to(ROOT)
    assert Path(firstread.agent.config.__file__).resolve() == ROOT / "agent" / "config.py"
