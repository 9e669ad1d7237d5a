"""An audit as one self-contained page: verdicts in words, the figures behind them, and altered films as pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from scipy import ndimage

from firstread.models.audit import plots
from firstread.models.audit.alterations import Scene
from firstread.models.audit.audit import Audit
from firstread.models.audit.console import VERDICTS
from firstread.models.audit.measured import shown
from firstread.models.audit.picture import Picture, resized, with_longest_side
from firstread.models.audit.spectrum import gain_between, with_gain
from firstread.models.data.film import DataError, Film
from firstread.models.data.nuisance import meaning
from firstread.models.evaluation.pictures import as_uri

_SIDE = 168
_THORAXES = 8
"""Films shown with their estimated thorax."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page and what stands under it."""

    uri: str
    caption: str
    quiet: str = ""


def page(audit: Audit, table: dict[str, Any], picture_of: Callable[[Film], Picture] = shown) -> str:
    """The page as HTML. ``table``: what ``as_json`` made of the same audit. Up to nine films are read once more."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    example = _first(audit.films, audit.altered, picture_of)
    mild = {each.key: each.mild for each in audit.alterations}
    return environment.get_template("audit.html").render(
        t=table,
        words=VERDICTS,
        meaning=meaning,
        meanings=lambda names: [meaning(name) for name in names],
        judged=[one["label"] for one in table["verdicts"] if table["labels"][one["label"]]["auroc"] is not None],
        effects={
            label: {effect["key"]: effect for effect in found["effects"]} for label, found in table["labels"].items()
        },
        mild=mild,
        forests={one.label: _uri(svg) for one in audit.labels if (svg := plots.forest_svg(one))},
        spectra=_uri(plots.spectra_svg(audit.spectra)) if audit.spectra else "",
        pictures=[] if example is None else _altered(audit, *example),
        thoraxes=_thoraxes(audit, picture_of),
    )


def _first(
    films: Sequence[Film], indices: Sequence[int], picture_of: Callable[[Film], Picture]
) -> tuple[Film, Picture] | None:
    for index in indices:
        try:
            return films[index], picture_of(films[index])
        except DataError:
            continue
    return None


def _altered(audit: Audit, film: Film, picture: Picture) -> list[Shown]:
    scene = Scene(picture, film.key)
    found = [Shown(_thumbnail(picture), "as it is", film.key)]
    for alteration in audit.alterations:
        changed = alteration(scene) if alteration.tell is None else None
        if changed is not None:
            found.append(Shown(_thumbnail(changed), alteration.words, "" if alteration.mild else "not counted"))
    for label, (without, with_label) in list(audit.spectra.items())[:1]:  # the others look alike at this size
        for words, gain in (
            ("without", gain_between(with_label, without)),
            ("with", gain_between(without, with_label)),
        ):
            caption = f"noise changed by what films {words} {label} differ"
            found.append(Shown(_thumbnail(with_gain(picture, gain)), caption))
    return found


def _thoraxes(audit: Audit, picture_of: Callable[[Film], Picture]) -> list[Shown]:
    found = []
    for index in audit.altered[:: max(1, len(audit.altered) // _THORAXES)][:_THORAXES]:
        try:
            picture = picture_of(audit.films[index])
        except DataError:
            continue
        thorax = Scene(picture, audit.films[index].key).thorax
        small = with_longest_side(picture, _SIDE)
        mask = np.asarray(Image.fromarray(thorax.mask).resize((small.shape[1], small.shape[0])), np.bool_)
        outline = mask & ~ndimage.binary_erosion(mask, iterations=1)
        drawn = np.where(outline, 1.0, small * 0.85).astype(np.float32)
        found.append(Shown(as_uri(drawn), audit.films[index].key, "" if thorax.found else "not seen: a fixed oval"))
    return found


def _thumbnail(picture: Picture) -> str:
    rows, columns = picture.shape
    factor = _SIDE / max(rows, columns)
    return as_uri(resized(picture, max(2, round(rows * factor)), max(2, round(columns * factor))))


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
