"""``firstread models import`` as a data scientist types it: what it prints, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from firstread.agent.cli import app
from firstread.models import bundle_writer
from firstread.models.bundle import load_bundle, read_weights
from firstread.models.importing import importer
from tests.models import importing_nets as nets


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Lightning leaves it: 14 outputs, two of them unknown to the product."""
    network = nets.narrow_resnet50(14)
    folder = tmp_path_factory.mktemp("weights")
    return nets.saved({"state_dict": nets.prefixed(dict(network.state_dict()), "model.")}, folder / "epoch=7 best.ckpt")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


LABELS = nets.NIH14.replace("Hernia", "Fracture").replace("Effusion", "Pleural Effusion")


def typed(*words: object) -> Result:
    return CliRunner().invoke(app, ["models", "import", *map(str, words)])


def test_an_import_says_what_it_made_of_each_output_and_how_well_it_agrees(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS.split(",")))
    (tmp_path / "points.json").write_text('{"Pleural Effusion": 0.31, "No Finding": 0.2}')
    done = typed(weights, "--labels", "labels.txt", "--thresholds", "points.json", "--threads", 1, "--note", "From A.")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "epoch-7-best-1.0.0"
    assert f"epoch-7-best 1.0.0 is in {folder.name} (resnet50, 224 px)" in done.output
    assert "Taken for resnet50 (torchvision)" in done.output
    assert "worst difference" in done.output
    assert "Every label is experimental" in done.output
    assert "0.5 stands in its place and means nothing. Calibrate" in done.output
    assert "No Finding, which these weights do not assess" in done.output
    bundle = load_bundle(folder)
    assert bundle.experimental == set(bundle.labels)
    assert "Hernia" not in bundle.labels
    assert len(bundle.labels) == 13
    assert bundle.thresholds["Effusion"] == 0.31
    assert bundle.thresholds["Mass"] == 0.5
    assert bundle.provenance["left_out"] == ["Fracture"]
    assert set(bundle.provenance["not_assessed"]) == {"Hernia", "No Finding"}
    assert bundle.provenance["note"] == "From A."
    assert "Nothing is known here of how well they work" in bundle.card
    assert "From A." in bundle.card
    stored = torch.load(weights, weights_only=True)["state_dict"]
    kept = read_weights(bundle)
    assert torch.equal(torch.from_numpy(kept["conv1.weight"]), stored["model.conv1.weight"])
    assert torch.equal(torch.from_numpy(kept["fc.weight"]), stored["model.fc.weight"][:13])


def test_json_is_for_programs(weights: Path) -> None:
    done = typed(weights, "--arch", "resnet50", "--labels", LABELS, "--out", "b", "--json", "--threads", 1)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["parity"]["worst_difference"] <= 1e-5
    assert said["outputs"][2] == {"name": "Pleural Effusion", "label": "Effusion"}
    assert said["operating_points_from"]["Mass"] == "none"
    assert said["remarks"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "Mass,Nodule"], "has 14 outputs, --labels names 2"),
        ([], "need names: give --labels"),
        (["--labels", LABELS.replace("Mass", "Mas")], "close to 'Mass'"),
        (["--labels", LABELS, "--arch", "resnet101"], "--arch resnet101 is unknown"),
        (["--labels", LABELS, "--arch", "torchxrayvision-resnet50"], "reads 3 channels"),
        (["--labels", LABELS, "--arch", "onnx"], "no valid ONNX file"),
        (["--labels", LABELS, "--output", "softmax"], "no label for 'Fracture'"),
        (["--labels", LABELS, "--output", "relu"], "--output relu is unknown"),
        (["--labels", LABELS, "--mean", "a,b"], "is no list of numbers"),
        (["--labels", LABELS, "--mean", "0.5"], "belong together"),
        (["--labels", LABELS, "--fit", "squeeze"], "must be one of stretch"),
        (["--labels", LABELS, "--resample", "lanczos"], "must be one of box"),
        (["--labels", LABELS, "--input-size", "5000"], "between 32 and 1024"),
        (["--labels", LABELS, "--input-size", "0"], "between 32 and 1024"),
        (["--labels", LABELS, "--resize-to", "100"], "the shorter side needs 224 to 2048 pixels"),
        (["--labels", LABELS, "--resize-to", "300", "--fit", "stretch"], "leave one of them out"),
        (["--labels", LABELS, "--thresholds", "missing.json"], "missing.json cannot be read"),
        (["--labels", LABELS, "--precision", "int4"], "precision 'int4' is unknown"),
        (["--labels", LABELS, "--name", "a/b"], "the name 'a/b' cannot be used"),
        (["--labels", LABELS, "--version", ""], "the version '' cannot be used"),
        (["--labels", LABELS, "--out", "."], "exists: a bundle is never overwritten"),
        (["--labels", "missing.txt"], "no such file of labels"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_leaves_nothing(
    words: list[str], said: str, weights: Path, tmp_path: Path
) -> None:
    done = typed(weights, *words)
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_that_wants_to_run_code_runs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Hostile()}, "w.ckpt")
    done = typed("w.ckpt", "--labels", LABELS)
    assert done.exit_code == 1
    assert "wants to run code" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["w.ckpt"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("none.pth", "none.onnx"):
        done = typed(name, "--labels", LABELS)
        assert done.exit_code == 1
        assert f"{name}: there is no such file" in done.output


@pytest.mark.parametrize("arch", ["resnet50", "timm-resnet50"])
def test_weights_of_another_architecture_leave_nothing(arch: str, tmp_path: Path) -> None:
    nets.saved(nets.resnet18().state_dict(), tmp_path / "w.pth")
    done = typed("w.pth", "--arch", arch, "--labels", nets.NIH14)
    assert done.exit_code == 1
    assert "a ResNet18, not a ResNet50" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_a_bundle_that_answers_otherwise_than_its_weights_is_taken_away_again(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = importer.network_answers
    monkeypatch.setattr(importer, "network_answers", lambda *given: honest(*given)[:, ::-1])
    done = typed(weights, "--labels", LABELS, "--out", "b", "--threads", 1)
    assert done.exit_code == 1
    assert "it was removed" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_writer, "_write_weights", full)
    done = typed(weights, "--labels", LABELS, "--out", "b", "--threads", 1)
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_sees_no_difference_between_films_is_remarked_on(tmp_path: Path) -> None:
    network = nets.narrow_resnet50(14)
    with torch.no_grad():
        network.fc.weight.zero_()
    nets.saved(network.state_dict(), tmp_path / "w.pth")
    done = typed("w.pth", "--labels", nets.NIH14, "--threads", 1)
    assert done.exit_code == 0
    assert "four different phantoms the same answer" in done.output
