"""Changes to a film that leave the disease alone: each at a stated strength, doing what it says and nothing else.

Strengths are meant for a film whose longer side has 512 pixels (``picture.scale_of``). An alteration that has nothing
to do on a film (no mark to take out) gives None.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from PIL import Image
from scipy import ndimage

from firstread.models.audit import marks
from firstread.models.audit.picture import Picture, generator, resized, scale_of, with_longest_side
from firstread.models.audit.thorax import Thorax, estimate
from firstread.models.data.film import Film


@dataclass(frozen=True)
class Scene:
    """A film about to be altered. ``key`` names it: chance is the same for the same key."""

    picture: Picture
    key: str

    @cached_property
    def thorax(self) -> Thorax:
        """Where the thorax lies, estimated when first asked for."""
        return estimate(self.picture)


@dataclass(frozen=True)
class Alteration:
    """One change. ``key``: its name in JSON. ``family``: its heading. ``words``: what it does, with the strength.

    ``mild``: a radiologist would read the film as before, so that a result that turns counts in the verdict. The
    stronger ones are shown, since small lesions may truly drown in them.
    ``tell``: for models that are told more than the picture, what is said of the film instead (None where there is
    nothing to say otherwise); the picture then stays as it is.
    """

    key: str
    family: str
    words: str
    mild: bool
    change: Callable[[Scene], Picture | None]
    tell: Callable[[Film], Film | None] | None = None

    def __call__(self, scene: Scene) -> Picture | None:
        """The changed film [rows, columns] in [0, 1], float32; None where there is nothing to change."""
        changed = self.change(scene)
        return None if changed is None else np.ascontiguousarray(np.clip(changed, 0, 1), np.float32)


def blur(scene: Scene, sigma: float) -> Picture:
    """Gaussian blur of ``sigma`` pixels at 512 px."""
    if sigma == 0:
        return scene.picture
    blurred: Picture = ndimage.gaussian_filter(scene.picture, sigma * scale_of(scene.picture), mode="nearest")
    return blurred


def noise(scene: Scene, levels: float) -> Picture:
    """White noise of ``levels`` grey levels of 255 at 512 px: what is left of it after averaging to that size."""
    rng = generator("noise", levels, scene.key)
    spread = levels / 255 * scale_of(scene.picture)
    return scene.picture + spread * rng.standard_normal(scene.picture.shape, dtype=np.float32)


def gamma(scene: Scene, exponent: float) -> Picture:
    """Every grey raised to a power: below 1 is brighter."""
    return np.asarray(scene.picture**exponent, np.float32)


def brightness(scene: Scene, levels: float) -> Picture:
    """Every grey shifted by ``levels`` of 255 and cut at the ends."""
    return scene.picture + np.float32(levels / 255)


def contrast(scene: Scene, factor: float) -> Picture:
    """Greys spread about the film's own mean by a factor and cut at the ends."""
    middle = scene.picture.mean()
    spread: Picture = middle + np.float32(factor) * (scene.picture - middle)
    return spread


def crop(scene: Scene, share: float) -> Picture:
    """The film without ``share`` of its length at each side."""
    rows, columns = scene.picture.shape
    down, across = round(rows * share), round(columns * share)
    return scene.picture[down : rows - down, across : columns - across]


def border(scene: Scene, share: float) -> Picture:
    """The whole film in a black border, ``share`` of its length wide."""
    rows, columns = scene.picture.shape
    down, across = round(rows * share), round(columns * share)
    return np.pad(scene.picture, ((down, down), (across, across)))


def jpeg(scene: Scene, quality: int) -> Picture:
    """The film as 8-bit JPEG of that quality, and back."""
    kept = io.BytesIO()
    Image.fromarray(np.rint(scene.picture * 255).astype(np.uint8)).save(kept, "JPEG", quality=quality)
    return np.asarray(Image.open(kept), np.float32) / np.float32(255)


def resize(scene: Scene, side: int) -> Picture | None:
    """The film brought to ``side`` pixels and back; None where it has that size."""
    rows, columns = scene.picture.shape
    if max(rows, columns) == side:
        return None
    return resized(with_longest_side(scene.picture, side), rows, columns)


def mirror(scene: Scene) -> Picture:
    """Left and right exchanged."""
    return scene.picture[:, ::-1]


def _mark(scene: Scene, text: str, left: bool) -> Picture:
    return marks.with_letters(scene.picture, text, left=left)


def _without_marks(scene: Scene) -> Picture | None:
    return marks.without_marks(scene.picture, generator("marks", scene.key))


def _tube(scene: Scene) -> Picture:
    return marks.with_chest_tube(scene.picture, scene.thorax, generator("tube", scene.key))


def _leads(scene: Scene) -> Picture:
    return marks.with_leads(scene.picture, scene.thorax, generator("leads", scene.key))


ALTERATIONS: tuple[Alteration, ...] = (
    Alteration("blur-0.5", "blur", "Gaussian blur, sigma 0.5 px at 512 px", True, partial(blur, sigma=0.5)),
    Alteration("blur-1", "blur", "Gaussian blur, sigma 1 px at 512 px", True, partial(blur, sigma=1.0)),
    Alteration("blur-2", "blur", "Gaussian blur, sigma 2 px at 512 px", False, partial(blur, sigma=2.0)),
    Alteration("noise-3", "noise", "white noise, 3 grey levels at 512 px", True, partial(noise, levels=3.0)),
    Alteration("noise-6", "noise", "white noise, 6 grey levels at 512 px", False, partial(noise, levels=6.0)),
    Alteration("gamma-0.8", "greys", "gamma 0.8 (brighter)", True, partial(gamma, exponent=0.8)),
    Alteration("gamma-1.25", "greys", "gamma 1.25 (darker)", True, partial(gamma, exponent=1.25)),
    Alteration("brightness+20", "greys", "20 grey levels brighter", True, partial(brightness, levels=20)),
    Alteration("brightness-20", "greys", "20 grey levels darker", True, partial(brightness, levels=-20)),
    Alteration("contrast-0.8", "greys", "contrast times 0.8", True, partial(contrast, factor=0.8)),
    Alteration("contrast-1.25", "greys", "contrast times 1.25", True, partial(contrast, factor=1.25)),
    Alteration("crop-3", "borders", "3 % cut off each side", True, partial(crop, share=0.03)),
    Alteration("crop-6", "borders", "6 % cut off each side", False, partial(crop, share=0.06)),
    Alteration("border-5", "borders", "black border of 5 % added", True, partial(border, share=0.05)),
    Alteration(
        "mark-own-side", "marks", "letter L painted in, patient's left", True, partial(_mark, text="L", left=False)
    ),
    Alteration(
        "mark-other-side", "marks", "letter L painted in, patient's right", True, partial(_mark, text="L", left=True)
    ),
    Alteration("text-left", "marks", "PORTABLE painted in, left rim", True, partial(_mark, text="PORTABLE", left=True)),
    Alteration(
        "text-right", "marks", "PORTABLE painted in, right rim", True, partial(_mark, text="PORTABLE", left=False)
    ),
    Alteration("marks-out", "marks", "bright marks near the rim painted out", True, _without_marks),
    Alteration("chest-tube", "devices", "a chest tube drawn in", True, _tube),
    Alteration("ecg-leads", "devices", "ECG leads drawn in", True, _leads),
    Alteration("jpeg-90", "compression", "JPEG quality 90", True, partial(jpeg, quality=90)),
    Alteration("jpeg-75", "compression", "JPEG quality 75", True, partial(jpeg, quality=75)),
    Alteration("jpeg-50", "compression", "JPEG quality 50", False, partial(jpeg, quality=50)),
    Alteration("size-256", "size", "256 px and back", False, partial(resize, side=256)),
    Alteration("size-1024", "size", "1024 px and back", True, partial(resize, side=1024)),
    Alteration("size-2048", "size", "2048 px and back", True, partial(resize, side=2048)),
    Alteration("mirrored", "mirrored", "left and right exchanged", False, mirror),
)
"""Every counterfactual that is asked of every film, besides the exchange of noise (``spectrum``)."""


def _unchanged(scene: Scene) -> Picture:
    return scene.picture


def _other_view(film: Film) -> Film | None:
    other = {"AP": "PA", "PA": "AP"}.get(film.view)
    return None if other is None else replace(film, view=other)


def _other_sex(film: Film) -> Film | None:
    other = {"F": "M", "M": "F"}.get(film.sex)
    return None if other is None else replace(film, sex=other)


def _younger_or_older(film: Film) -> Film | None:
    return None if film.age is None else replace(film, age=film.age + (20 if film.age < 50 else -20))


TOLD: Mapping[str, Alteration] = {
    "view": Alteration("told-other-view", "told", "told AP for PA, PA for AP", True, _unchanged, _other_view),
    "sex": Alteration("told-other-sex", "told", "told the other sex", False, _unchanged, _other_sex),
    "age": Alteration(
        "told-other-age", "told", "told 20 years more (less from 50 on)", False, _unchanged, _younger_or_older
    ),
}
"""What is asked of models that are told these of a film besides the picture. The view is how the film was made."""
