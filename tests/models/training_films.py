"""Small films and small recipes, for tests of training: a disc on noise that a narrow network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models.data.film import Film, FilmSet
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.phantoms import training_phantoms
from firstread.models.preprocess import Preprocessing
from firstread.models.training.augment import Augmentation
from firstread.models.training.phantom_films import phantom_film
from firstread.models.training.recipe import Recipe, Stage

NARROW = ("width=4", "blocks=[1,1,1,1]")
"""Changes that make any recipe's network a narrow one."""

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def stage(**changed: object) -> Stage:
    """A stage of two epochs on a dozen phantoms."""
    values = {"name": "only", "films": "phantoms", "epochs": 2, "rate": 1e-3, "phantoms_per_epoch": 12, "batch": 4}
    return Stage(**{**values, **changed})  # type: ignore[arg-type]


def recipe(*stages: Stage, **changed: object) -> Recipe:
    """A recipe of a narrow network at 32 pixels, in float32."""
    values: dict[str, object] = {
        "name": "test",
        "seed": 3,
        "store_side": 64,
        "preprocessing": Preprocessing(input_size=32),
        "stages": stages or (stage(),),
        "width": 8,
        "blocks": (1, 1, 1, 1),
        "precision": "float32",
        "text": "test",
    }
    return Recipe(**{**values, **changed})  # type: ignore[arg-type]


def discs(count: int, seed: int, *, phantom: bool = True) -> FilmSet:
    """Films of which half carry a bright disc, called a mass; the others carry No Finding.

    Films that are no phantoms belong to patients of two films each, with sex, age and view.
    """
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
        if phantom:
            films.append(phantom_film(f"disc-{number}", target, corners))
        else:
            films.append(film(f"real-{number}", f"p{number // 2}", target, sex="MF"[number % 2], age=30.0 + number))
    return FilmSet(tuple(films), pixels)


def film(
    key: str, patient: str, target: npt.NDArray[np.float32] | None = None, sex: str = "", age: float | None = None
) -> Film:
    """A real film of which all fifteen labels are known."""
    said = np.zeros(len(LABELS), np.float32) if target is None else target
    known = np.ones(len(LABELS), np.float32)
    return Film(key, patient, said, known, phantom=False, view="PA", sex=sex, age=age)


def target_of(*labels: str) -> npt.NDArray[np.float32]:
    """The target of a film that carries these labels."""
    return np.array([label in labels for label in LABELS], np.float32)


def still() -> Augmentation:
    """No variation but mirroring."""
    return Augmentation(
        rotate_degrees=0, shift=0, zoom=0, stretch=0, blur_px=0, noise=0, gamma=1, shading=0, erase=0, texture=0
    )


def nih_miniature(folder: Path, films: int = 40, side: int = 96) -> Path:
    """NIH's release in small: ``images/`` of drawn films, ``Data_Entry_2017.csv`` and both lists. Returns the table."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, train, test = [HEADER], [], []
    for number, phantom in enumerate(training_phantoms(films, 5, (side, side))):
        patient = number // 2 + 1  # two films of each
        name = f"{patient:08d}_{number % 2:03d}.png"
        Image.fromarray(phantom.image).save(images / name)
        labels = "|".join(label for label, there in zip(LABELS, phantom.target, strict=True) if there)
        person = f"{rng.integers(20, 80)},{'MF'[patient % 2]},{'PA' if patient % 3 else 'AP'}"
        rows.append(f"{name},{labels},{number % 2},{patient},{person},{side},{side},0.143,0.143")
        (test if patient % 4 == 0 else train).append(name)
    table = folder / "Data_Entry_2017.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "train_val_list.txt").write_text("\n".join(train) + "\n", encoding="utf-8")
    (folder / "test_list.txt").write_text("\n".join(test) + "\n", encoding="utf-8")
    return table
