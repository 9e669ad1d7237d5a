"""Training learns, goes on where it was stopped, and refuses what it cannot learn from."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from firstread.models.data.film import FilmSet, fold_of
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.network import load_state
from firstread.models.preprocess import Preprocessing
from firstread.models.training import train as training
from firstread.models.training.augment import Augmentation, vary
from firstread.models.training.dataset import TrainingDataError, draw_phantoms, phantom_film, read_nih
from firstread.models.training.evaluate import auroc, logits_of
from firstread.models.training.recipe import Recipe, Stage, load_recipe

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,source_noise"


def recipe(**stage: object) -> Recipe:
    values = {"name": "only", "films": "phantoms", "epochs": 2, "rate": 1e-3, "phantoms_per_epoch": 12, "batch": 4}
    return Recipe(
        name="test",
        seed=3,
        store_side=64,
        phantoms=12,
        judged_phantoms=0,
        preprocessing=Preprocessing(input_size=32),
        stages=(Stage(**{**values, **stage}),),  # type: ignore[arg-type]
        text="test",
    )


def squares_and_discs(count: int, seed: int) -> FilmSet:
    """Films of which half carry a bright disc: called a mass, so that a little network can learn it at once."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 120, (count, 64, 64)).astype(np.uint8)
    films = []
    for number in range(count):
        target = np.zeros(len(LABELS), np.float32)
        corners = np.full((len(LABELS), 4), np.nan, np.float32)
        label = "Mass" if number % 2 else NO_FINDING
        target[LABELS.index(label)] = 1
        if label == "Mass":
            x, y = rng.integers(14, 50, 2)
            rows, columns = np.mgrid[0:64, 0:64]
            pixels[number][(rows - y) ** 2 + (columns - x) ** 2 < 100] = 250
            corners[LABELS.index(label)] = (x - 10, y - 10, x + 10, y + 10)
        films.append(phantom_film(f"disc-{number}", target, corners))
    return FilmSet(tuple(films), pixels)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code with a tenth of the channels."""
    from firstread.models.architecture import Architecture
    from firstread.models.network import ChestNetwork

    def narrow(made: Recipe) -> ChestNetwork:
        torch.manual_seed(made.seed)
        return ChestNetwork(Architecture(outputs=len(LABELS), width=8, blocks=(1, 1, 1, 1)))

    monkeypatch.setattr(training, "network_of", narrow)
    torch.set_num_threads(1)


def write_table(folder: Path, rows: list[str], header: str = HEADER) -> tuple[Path, Path]:
    images = folder / "images"
    images.mkdir()
    for row in rows:
        Image.fromarray(np.full((40, 40), 90, np.uint8)).save(images / row.split(",")[0])
    table = folder / "labels.csv"
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table, images


def losses(folder: Path) -> list[float]:
    with (folder / "losses.csv").open(encoding="utf-8") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def test_a_stopped_training_goes_on_to_the_same_losses_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = squares_and_discs(12, 0)
    whole = training.train(recipe(epochs=3), films, tmp_path / "whole")
    note = training._note

    def stop_after_two(path: Path, stage: str, epoch: int, loss: float, rate: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        note(path, stage, epoch, loss, rate)

    monkeypatch.setattr(training, "_note", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(epochs=3), films, tmp_path / "stopped")
    monkeypatch.setattr(training, "_note", note)
    resumed = training.train(recipe(epochs=3), films, tmp_path / "stopped")
    np.testing.assert_allclose(losses(tmp_path / "stopped"), losses(tmp_path / "whole"), atol=1e-6)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_recipe_is_not_taken_up(tmp_path: Path) -> None:
    films = squares_and_discs(12, 0)
    training.train(recipe(epochs=1), films, tmp_path)
    with pytest.raises(TrainingDataError, match="checkpoint of another recipe"):
        training.train(replace(recipe(epochs=1), text="other"), films, tmp_path)


def test_a_checkpoint_that_wants_to_run_code_is_not_opened(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"recipe": Evil()}, tmp_path / "only.pt")
    with pytest.raises(pickle.UnpicklingError):
        training.train(recipe(), squares_and_discs(12, 0), tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = squares_and_discs(12, 0)
    training.train(recipe(epochs=1), films, tmp_path)
    before = (tmp_path / "only.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.torch, "save", full)
    with pytest.raises(TrainingDataError, match="make room; the one before is kept"):
        training._save({}, tmp_path / "only.pt")
    assert (tmp_path / "only.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_loss_that_is_no_number_stops_the_training_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_step", lambda *_: float("nan"))
    with pytest.raises(TrainingDataError, match="epoch 1: the loss is nan"):
        training.train(recipe(), squares_and_discs(12, 0), tmp_path)


def test_it_learns_to_tell_and_to_point(tmp_path: Path) -> None:
    made = recipe(epochs=10, phantoms_per_epoch=64, rate=4e-3, pointing=0.3, average=0.9)
    weights = training.train(made, squares_and_discs(64, 0), tmp_path)
    network = training.network_of(made)
    load_state(network, weights)
    fresh = squares_and_discs(40, 1)
    present = np.array([film.target[LABELS.index("Mass")] > 0 for film in fresh.films])
    score = logits_of(network, fresh, made.preprocessing)[:, LABELS.index("Mass")]
    assert auroc(present, score) > 0.9
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] / 2


@pytest.mark.slow
def test_a_minute_on_phantoms_at_64_pixels_learns(tmp_path: Path) -> None:
    made = replace(
        recipe(epochs=12, phantoms_per_epoch=240, batch=8, rate=4e-3, pointing=0.2, average=0.95),
        preprocessing=Preprocessing(input_size=64),
        store_side=96,
        augmentation_phantoms=Augmentation(flip=0.5, blur_px=0.3, noise=0.01, erase=0.0, texture=0.0),
    )
    weights = training.train(made, draw_phantoms(240, 1, 96), tmp_path)
    network = training.network_of(made)
    load_state(network, weights)
    fresh = draw_phantoms(80, 2, 96)
    present = np.array([film.target[LABELS.index(NO_FINDING)] > 0 for film in fresh.films])
    score = logits_of(network, fresh, made.preprocessing)[:, LABELS.index(NO_FINDING)]
    assert auroc(present, score) > 0.7


def test_no_patient_is_on_both_sides_of_a_split() -> None:
    folds = {fold_of(f"nih-{number}", 5) for number in range(100)}
    assert folds == {0, 1, 2, 3, 4}
    assert [fold_of(f"nih-{number}", 5) for number in range(20)] == [fold_of(f"nih-{n}", 5) for n in range(20)]


def test_the_split_does_not_depend_on_the_other_patients() -> None:
    # A fixed answer: a change of the hash would silently mix what earlier bundles held out.
    assert [fold_of(f"nih-{number}", 5) for number in (1, 61, 150, 30805)] == [0, 3, 1, 2]


def test_nihs_table_is_read_with_patients_labels_and_nuisances(tmp_path: Path) -> None:
    rows = ["a.png,Edema|Pneumonia,0,7,50,M,AP,4.5", "b.png,No Finding,0,8,51,F,PA,3.0"]
    table, images = write_table(tmp_path, rows)
    films = read_nih(table, images, 32)
    assert films.pixels.shape == (2, 32, 32)
    assert [film.patient for film in films.films] == ["nih-7", "nih-8"]
    assert films.films[0].target.sum() == 2
    assert films.films[0].target[LABELS.index("Edema")] == 1
    assert films.films[1].target[LABELS.index(NO_FINDING)] == 1
    assert films.films[0].view == "AP"
    assert films.films[0].nuisances == {"source_noise": 4.5}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.png,Edema|Fracture,0,7,50,M,AP,4.5", r"row 2: 'Fracture' is none of the 15 labels"),
        ("a.png,Edema|No Finding,0,7,50,M,AP,4.5", r"row 2: No Finding stands beside a finding"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(TrainingDataError, match=said):
        read_nih(*write_table(tmp_path, [row]), 32)


def test_a_broken_image_is_named_with_its_row(tmp_path: Path) -> None:
    table, images = write_table(tmp_path, ["a.png,Edema,0,7,50,M,AP,4.5"])
    (images / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(TrainingDataError, match=r"a\.png: broken image .* row 2"):
        read_nih(table, images, 32)


def test_a_table_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    table, images = write_table(tmp_path, ["a.png,Edema"], header="Image Index,Labels")
    with pytest.raises(TrainingDataError, match="lacks the column\\(s\\) Finding Labels, Patient ID"):
        read_nih(table, images, 32)


def test_a_folder_without_any_image_of_the_table_says_what_to_give(tmp_path: Path) -> None:
    table, _ = write_table(tmp_path, ["a.png,Edema,0,7,50,M,AP,4.5"])
    with pytest.raises(TrainingDataError, match=r"give the folder that holds the \.png files"):
        read_nih(table, tmp_path, 32)


def test_what_a_drawn_lesion_could_be_called_as_well_is_unknown() -> None:
    target = np.zeros(len(LABELS), np.float32)
    target[LABELS.index("Consolidation")] = 1
    film = phantom_film("p", target, np.full((len(LABELS), 4), np.nan, np.float32))
    known = dict(zip(LABELS, film.known, strict=True))
    assert known["Infiltration"] == known["Atelectasis"] == 0
    assert film.target[LABELS.index("Pneumonia")] == 1, "a drawn consolidation teaches what pneumonia looks like"
    assert known["Consolidation"] == known["Pneumothorax"] == known[NO_FINDING] == 1


def test_phantoms_that_were_kept_are_the_ones_that_were_drawn(tmp_path: Path) -> None:
    drawn = draw_phantoms(3, 5, 64, tmp_path)
    kept = draw_phantoms(3, 5, 64, tmp_path)
    np.testing.assert_array_equal(drawn.pixels, kept.pixels)
    assert [film.boxes for film in drawn.films] == [film.boxes for film in kept.films]
    np.testing.assert_array_equal(drawn.pixels[:2], draw_phantoms(2, 5, 64).pixels)


def test_a_box_follows_its_lesion_through_the_variation() -> None:
    image = np.zeros((128, 128), np.float32)
    image[30:40, 80:90] = 1
    from firstread.models.prediction import Box

    still = Augmentation(blur_px=0, noise=0, gamma=1, shading=0, erase=0, texture=0, flip=1.0)
    varied = vary(image, np.random.default_rng(4), still)
    box = varied.follow(Box(80, 30, 90, 40))
    rows, columns = np.nonzero(varied.image > 0.5)
    assert columns.min() >= box.left - 1
    assert columns.max() + 1 <= box.right + 1
    assert rows.min() >= box.top - 1
    assert rows.max() + 1 <= box.bottom + 1
    assert columns.mean() < 64, "mirrored to the other side"


def test_the_same_generator_varies_a_film_in_the_same_way() -> None:
    image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    first = vary(image, np.random.default_rng(9), Augmentation())
    second = vary(image, np.random.default_rng(9), Augmentation())
    np.testing.assert_array_equal(first.image, second.image)
    assert not np.array_equal(first.image, vary(image, np.random.default_rng(10), Augmentation()).image)


def test_every_recipe_that_comes_with_the_product_can_be_read() -> None:
    made = load_recipe("scratch")
    assert made.name == "scratch"
    assert made.stages[-1].films == "all"
    assert made.stages[-1].input_size is None, "the last stage trains at the size that the bundle serves"


def test_a_recipe_with_a_misspelt_key_says_which_are_known(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\n[preprocessing]\ninput_sice = 112\n[[stage]]\n', encoding="utf-8")
    with pytest.raises(TrainingDataError, match=r"mine\.toml: not a recipe"):
        load_recipe(str(path))
    with pytest.raises(TrainingDataError, match=r"give a \.toml file or one of scratch"):
        load_recipe("nothing")
