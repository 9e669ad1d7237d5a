"""``models train`` as a person runs it: on NIH's release in small, killed, on several processes, with a full disk."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.models.bundle import load_bundle, verify_bundle
from firstread.models.calibration import Scored
from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.training.checkpoint import write_whole
from firstread.models.training.course import Outcome
from firstread.models.training.lock import alone
from firstread.models.training.metadata_value import added_by_metadata
from firstread.models.training.to_bundle import evidence
from tests.models.training_films import NARROW, film, nih_miniature, target_of
from tests.models.training_films import recipe as small_recipe
from tests.peers import free_port

SMALL = (*NARROW, "initial=random", "store_side=64", "preprocessing.input_size=32")
DEFAULT = (*(f"stage.{n}.epochs=1" for n in range(4)), *(f"stage.{n}.input_size=32" for n in range(3)))
ONE_EPOCH = {
    "seed": ("stage.0.epochs=1",),
    "default": (*DEFAULT, "validation=0.4"),
    "metadata": (*DEFAULT, "validation=0.4"),
    "scratch": (*(f"stage.{n}.epochs=1" for n in range(3)), "stage.0.input_size=32", "phantoms=8", "judged_phantoms=8"),
}


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    nih_miniature(folder)
    return folder


def arguments(nih: Path, recipe: str, out: Path, *more: str, changes: tuple[str, ...] = ()) -> list[str]:
    """The command line after ``firstread``."""
    said = ["models", "train", recipe, "--labels", str(nih / "Data_Entry_2017.csv"), "--images", str(nih / "images")]
    said += ["--out", str(out), "--threads", "1", *more]
    for change in (*SMALL, *changes):
        said += ["--set", change]
    return said


def run(*said: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, list(said))
    return found.exit_code, found.output


def losses(path: Path) -> list[float]:
    with path.open(encoding="utf-8") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize("recipe", sorted(ONE_EPOCH))
def test_every_recipe_runs_from_nihs_release_to_a_bundle(nih: Path, tmp_path: Path, recipe: str) -> None:
    code, said = run(*arguments(nih, recipe, tmp_path, "--split", "official", changes=ONE_EPOCH[recipe]))
    assert code == 0, said
    bundle = load_bundle(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle") == []
    assert bundle.name == recipe
    assert set(bundle.labels) <= set(LABELS)
    assert "Hernia" not in bundle.labels, "no film carries it: not assessed, instead of never found"
    assert bundle.architecture.output == ("softmax" if recipe == "seed" else "sigmoid")
    assert bundle.architecture.metadata == (("age", "sex", "view") if recipe == "metadata" else ())
    assert bundle.provenance["recipe"] == recipe
    assert "stage.0.epochs=1" in bundle.provenance["recipe_toml"]
    assert "NIH's own test list" in bundle.provenance["judged_by"]
    told = json.loads((tmp_path / "bundle" / "training.json").read_text(encoding="utf-8"))
    assert (told["learned"]["films"], told["judged"]["films"]) == (bundle.provenance["real_films"], 10)
    assert "stage.0.epochs=1" in bundle.card
    assert not list(tmp_path.rglob("*.pt")), "checkpoints of what has ended are gone"
    code, said = run(*arguments(nih, recipe, tmp_path, changes=ONE_EPOCH[recipe]))
    assert code == 1
    assert "is there already" in said


def test_cross_validation_judges_every_film_and_keeps_weights_that_saw_all(nih: Path, tmp_path: Path) -> None:
    changes = ("stage.0.epochs=1", "validation=0")
    code, said = run(*arguments(nih, "seed", tmp_path, "--folds", "2", "--profile", changes=changes))
    assert code == 0, said
    assert sorted(path.parent.name for path in tmp_path.glob("*/weights.safetensors")) == [
        "bundle",
        "final",
        "fold-0",
        "fold-1",
    ]
    provenance = load_bundle(tmp_path / "bundle").provenance
    assert provenance["real_films"] == 40
    assert "2-fold cross-validation by patient: 40 films of 20 patients" in provenance["judged_by"]
    assert "waiting for films" in said


@pytest.mark.slow
def test_a_training_killed_in_the_middle_goes_on_to_the_same_result(nih: Path, tmp_path: Path) -> None:
    changes = ("stage.0.epochs=4", "stage.0.trains=all")
    command = [sys.executable, "-m", "firstread.agent.cli"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, said = run(*arguments(nih, "seed", whole, "--hold-out", changes=changes))
    assert code == 0, said
    started = subprocess.Popen([*command, *arguments(nih, "seed", killed, "--hold-out", changes=changes)])
    checkpoint = killed / "fold-0" / "head.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait(timeout=30)
    assert not (killed / "bundle").exists(), "it ended before it could be killed"
    assert checkpoint.exists()
    code, said = run(*arguments(nih, "seed", killed, "--hold-out", changes=changes))
    assert code == 0, said
    curves = [folder / "fold-0" / "curves.csv" for folder in (whole, killed)]
    assert len(losses(curves[0])) == 4
    np.testing.assert_allclose(losses(curves[0]), losses(curves[1]), atol=1e-6)
    weights = [(folder / "bundle" / "weights.safetensors").read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_learn_what_one_would_and_the_first_alone_writes(nih: Path, tmp_path: Path) -> None:
    # With a locked backbone no batch normalisation sees half a batch: then two processes are one, but for rounding.
    changes = ("stage.0.epochs=2", "stage.0.batch=8")
    code, said = run(*arguments(nih, "seed", tmp_path / "one", "--hold-out", changes=changes))
    assert code == 0, said
    ranks = []
    for rank in (0, 1):
        torchrun = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **{name: str(value) for name, value in torchrun.items()}}
        ranks.append((rank, environment))
    port = str(free_port())
    command = [sys.executable, "-m", "firstread.agent.cli", *arguments(nih, "seed", tmp_path / "two", "--hold-out")]
    for change in changes:
        command += ["--set", change]
    started = [
        subprocess.Popen(
            command,
            env={**environment, "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _, environment in ranks
    ]
    said_by = [one.communicate(timeout=200)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], said_by
    assert "training: fold-0" in said_by[0]
    assert "head 1/2" not in said_by[1], "the second says nothing"
    alone, together = (losses(tmp_path / name / "fold-0" / "curves.csv") for name in ("one", "two"))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert verify_bundle(tmp_path / "two" / "bundle") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split", "sideways"], "split 'sideways' is unknown: use hash or official"),
        (["--device", "cuda:99"], "device cuda:99 was asked for|there is no GPU number 99"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--weights", "nowhere.pth"], "nowhere.pth: there is no such file"),
        (["--folds", "999", "--hold-out"], "more patients are needed"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(nih: Path, tmp_path: Path, more: list[str], said: str) -> None:
    code, output = run(*arguments(nih, "seed", tmp_path, *more))
    assert code == 1
    assert any(part in output for part in said.split("|")), output
    assert "Traceback" not in output


def test_real_films_are_asked_for_when_the_recipe_learns_from_them(tmp_path: Path) -> None:
    code, said = run("models", "train", "scratch", "--out", str(tmp_path))
    assert (code, "give --labels and --images" in said) == (1, True)


def test_one_class_only_is_refused_before_anything_is_trained(nih: Path, tmp_path: Path) -> None:
    table = (nih / "Data_Entry_2017.csv").read_text(encoding="utf-8").splitlines()
    healthy = [line for line in table[1:] if ",No Finding," in line]
    (tmp_path / "healthy.csv").write_text("\n".join([table[0], *healthy]) + "\n", encoding="utf-8")
    said = arguments(nih, "default", tmp_path / "out", "--hold-out", changes=ONE_EPOCH["default"])
    said[said.index("--labels") + 1] = str(tmp_path / "healthy.csv")
    code, output = run(*said)
    assert code == 1
    assert "all carry No Finding and nothing else" in output


def test_a_broken_image_is_named_with_its_row(nih: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nih"
    nih_miniature(folder, films=12)
    (folder / "images" / "00000002_001.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    code, output = run(*arguments(folder, "seed", tmp_path / "out", "--hold-out"))
    assert code == 1
    assert "00000002_001.png" in output
    assert "row 5" in output


def test_two_trainings_do_not_share_a_folder(nih: Path, tmp_path: Path) -> None:
    with alone(tmp_path / ".lock", "", ""):
        code, output = run(*arguments(nih, "seed", tmp_path))
    assert code == 1
    assert "is in use by another training: wait for it, or give another --out" in output


def test_a_label_is_experimental_until_enough_real_films_judged_it() -> None:
    films = [film(f"{i}", f"{i}", target_of("Mass" if i % 2 else "No Finding")) for i in range(60)]
    target = np.stack([one.target for one in films]) > 0.5
    scored = Scored(np.zeros((60, len(LABELS))), target, np.ones_like(target), np.zeros(60, bool))
    outcome = Outcome({}, ("Mass", "No Finding"), (), tuple(films), scored, "")
    assert evidence(small_recipe(), outcome) == (), "thirty of either kind are too few to speak without being asked"
    assert evidence(small_recipe(evidence=("Mass", "Hernia")), outcome) == ("Mass",)
    phantoms = replace(scored, phantom=np.ones(60, bool))
    assert evidence(small_recipe(evidence=("Mass",)), replace(outcome, scored=phantoms)) == ()


def test_a_folder_that_cannot_be_written_is_named(nih: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, output = run(*arguments(nih, "seed", tmp_path / "file" / "out"))
    assert code == 1
    assert "cannot be written" in output


def test_a_full_disk_leaves_the_file_before_it_and_says_so(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "stage.pt"
    write_whole(path, lambda stream: torch.save({"epoch": torch.zeros(10)}, stream))
    before = path.read_bytes()
    script = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from firstread.models.training.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "save_checkpoint({'weights': torch.zeros(1_000_000)}, Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert "DataError" in done.stderr, done.stderr
    assert "make room and run the same command again; the one before is kept" in done.stderr
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["stage.pt"]


def test_nothing_is_left_of_a_first_file_that_did_not_fit(tmp_path: Path) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device.*nothing was left behind"):
        write_whole(tmp_path / "curves.csv", full)
    assert not list(tmp_path.iterdir())


def test_what_metadata_add_is_measured_with_without_and_alone() -> None:
    rng = np.random.default_rng(5)
    films = []
    for number in range(200):
        age = float(rng.uniform(20, 80))
        old = target_of("Emphysema") if rng.random() < (age - 20) / 60 else target_of("No Finding")
        films.append(film(f"f{number}", f"p{number}", old, sex="F", age=age))
    column = LABELS.index("Emphysema")
    ages = np.array([one.age or 0.0 for one in films])
    told, hidden = np.zeros((100, len(LABELS))), np.zeros((100, len(LABELS)))
    told[:, column] = ages[100:]
    hidden[:, column] = rng.normal(size=100)
    found = added_by_metadata(("age", "sex"), films[100:], told, hidden, [films[:100]], [100])
    (one,) = [each for each in found if each.label == "Emphysema"]
    assert one.alone.value == pytest.approx(one.with_metadata.value, abs=0.02), "age alone says it all here"
    assert one.without.value < 0.65 < one.with_metadata.value
    assert one.gain.value == pytest.approx(one.with_metadata.value - one.without.value, abs=1e-9)
    assert one.gain.low > 0
    assert "they add +0." in str(one)
    assert {each.label for each in found} == {"Emphysema", "No Finding"}, "labels without films have no figure"
