"""Letters, texts, tubes and leads painted into a film, and bright marks near its rim painted out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from firstread.models.audit.picture import Mask, Picture
from firstread.models.audit.thorax import Thorax
from firstread.models.phantoms.anatomy import measure
from firstread.models.phantoms.canvas import Canvas, smooth_outline
from firstread.models.phantoms.devices import draw_devices
from firstread.models.phantoms.spec import PhantomSpec

_LETTER = 0.05
"""Height of a laterality letter as a share of the film; a text is a third of it."""

_RIM = 0.04
"""Distance of letters from the rim."""

_LEAD_GREY = 0.97

_TUBE = ((0.0, 0.06, 40), (-0.028, 0.01, 65), (0.028, 0.01, 65), (0.018, 0.011, 120))
"""Offset, width (of half a thorax) and grey of a drain's body, walls and stripe, as bright as on real films."""

_SIDE = 256
"""Marks are looked for on the film at so many pixels."""


def with_letters(picture: Picture, text: str, *, left: bool) -> Picture:
    """A laterality letter or a short text in white, near the upper rim at the image's left or right."""
    rows, columns = picture.shape
    height = max(6.0, _LETTER * rows / (1 if len(text) == 1 else 3))
    font = ImageFont.load_default(size=height)
    box = font.getbbox(text)
    x = _RIM * columns if left else (1 - _RIM) * columns - (box[2] - box[0])
    sheet = Image.new("L", (columns, rows))
    ImageDraw.Draw(sheet).text((x - box[0], 0.07 * rows - box[1]), text, fill=255, font=font)
    ink = np.asarray(sheet, np.float32) / np.float32(255)
    return np.asarray(picture + ink * np.maximum(np.float32(_LEAD_GREY) - picture, 0), np.float32)


def marks_near_rim(picture: Picture) -> Mask:
    """Bright small things near the rim: letters, texts, arrows, tape. [256, 256] over the whole film.

    A mark is brighter than its surroundings by three tenths of the film's range over a distance of 3 % of the film, no
    larger than an eighth of it (a text twice as wide), and lies in the outer fifth. Dim marks stay; a button, a clip or
    a bright edge of a bone at the rim may go.
    """
    small = _small(picture)
    low, high = np.percentile(small, [1, 99.5])
    reach = 2 * round(0.03 * _SIDE) + 1
    above = (small - ndimage.grey_opening(small, size=(reach, reach))) / max(float(high - low), 1e-6)
    bright = above > 0.15
    # The parts of a letter or a word belong together.
    parts, _ = ndimage.label(ndimage.binary_dilation(bright, iterations=2))
    found = np.zeros((_SIDE, _SIDE), bool)
    rim = round(0.2 * _SIDE)
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[place] == number
        tall, wide = part.shape
        inside = all(rim <= (each.start + each.stop) / 2 <= _SIDE - rim for each in place)
        if inside or tall > _SIDE / 8 or wide > _SIDE / 4 or (above[place] * part).max() < 0.3:
            continue
        found[place] |= part
    return np.asarray(ndimage.binary_dilation(found), np.bool_)


def without_marks(picture: Picture, rng: np.random.Generator) -> Picture | None:
    """The film with its bright marks near the rim filled from their surroundings, noise included; None without any."""
    found = marks_near_rim(picture)
    if not found.any():
        return None
    small, known = _small(picture), (~found).astype(np.float32)
    filled, weight = np.zeros_like(small), np.zeros_like(small)
    # From near to far: a hole takes the nearest greys that there are.
    for sigma in (1.0, 4.0, 16.0):
        near = ndimage.gaussian_filter(known, sigma, mode="nearest")
        grey = ndimage.gaussian_filter(small * known, sigma, mode="nearest") / np.maximum(near, 1e-6)
        share = np.clip(near * 4, 0, 1) * (1 - weight)
        filled, weight = filled + share * grey, weight + share
    filled = np.where(weight > 0.01, filled / np.maximum(weight, 1e-6), np.median(small))
    rows, columns = picture.shape
    soft = np.clip(_enlarged(ndimage.gaussian_filter((found * 2.0).astype(np.float32), 0.7), rows, columns), 0, 1)
    residual = picture - ndimage.uniform_filter(picture, 3)
    around = (soft > 0) & (soft < 1)
    spread = float(np.median(np.abs(residual[around]))) / 0.6745 if around.any() else 0.0
    fill = _enlarged(filled, rows, columns) + spread * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.asarray(picture * (1 - soft) + fill * soft, np.float32)


def _small(picture: Picture) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(picture, np.float32))
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32)


def _enlarged(layer: Picture, rows: int, columns: int) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(layer, np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR), np.float32)


def with_chest_tube(picture: Picture, thorax: Thorax, rng: np.random.Generator) -> Picture:
    """A drain from the side wall up to an apex: two walls and a stripe that stops X-rays."""
    canvas = _canvas(picture, thorax)
    side = float(rng.choice([-1.0, 1.0]))
    deep = (thorax.bottom - thorax.top) * picture.shape[0] / canvas.scale
    entry = deep * float(rng.uniform(0.6, 0.75))
    way = [(1.35, entry + 0.25), (1.0, entry), (0.78, entry * 0.72), (0.62, deep * 0.35), (0.45, deep * 0.14)]
    curve = smooth_outline([(side * x, y) for x, y in way], closed=False, steps=10)
    strokes = [
        (float(a[0]) + shift, float(a[1]), float(b[0]) + shift, float(b[1]), width, grey)
        for shift, width, grey in _TUBE
        for a, b in pairwise(curve)
    ]
    return _exposed(picture, canvas.strokes(strokes))


def with_leads(picture: Picture, thorax: Thorax, rng: np.random.Generator) -> Picture:
    """ECG leads: electrodes on the chest and their cables."""
    anatomy = measure(PhantomSpec(seed=int(rng.integers(0, 2**31))))
    return _exposed(picture, draw_devices(_canvas(picture, thorax), anatomy, ("leads",), rng))


def _canvas(picture: Picture, thorax: Thorax) -> Canvas:
    """The film as a drawing surface in thorax units: 1 is half the thorax's width, 0 the midline and the apex."""
    rows, columns = picture.shape
    scale = max(8.0, (thorax.right - thorax.left) * columns / 2)
    return Canvas(
        left=-thorax.midline * columns / scale,
        top=-thorax.top * rows / scale,
        width=columns / scale,
        height=rows / scale,
        scale=scale,
    )


def _exposed(picture: Picture, attenuation: Picture) -> Picture:
    """What lies on the patient takes a share of the light that was left."""
    rows, columns = picture.shape
    layer = attenuation[:rows, :columns]
    shown = np.zeros_like(picture)
    shown[: layer.shape[0], : layer.shape[1]] = layer
    return picture + np.float32(0.75) * shown * (1 - picture)
