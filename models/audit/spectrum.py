"""The noise of a film as an amplitude spectrum, and a film given the mean noise of other films.

The residual is what a Gaussian of one pixel (at 512 px) takes away. Its amplitudes are averaged over rings of equal
spatial frequency, in cycles per 512 px pixel, so that films of different sizes compare. Ring by ring the residual is
amplified or damped until its amplitude is the wanted one; what is too weak to be amplified is filled up with noise of
random phase. Sharp edges of bones and vessels live in the residual too: sharpness is exchanged along with noise, which
is meant, since both tell how a film was made. Greys and coarse structure stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from firstread.models.audit.picture import Picture, scale_of

Spectrum = npt.NDArray[np.float64]
"""[RINGS] root mean square amplitude per ring; NaN where no film reaches so high a frequency."""

RINGS = 32
_HIGHEST = 0.75
"""Cycles per pixel of a 512 px film; a film of 512 px ends at 0.5 along its axes and 0.71 in its corners."""

_SIGMA = 1.0
_MOST = 8.0
"""A residual is amplified by no more than this; noise fills up the rest."""


def spectrum_of(picture: Picture) -> Spectrum:
    """The residual's root mean square amplitude per ring, in greys: what white noise of that spread would have."""
    transform, ring = _transformed(_residual(picture))
    return _mean_by_ring(np.abs(transform) ** 2, ring) ** 0.5


def mean_spectrum(spectra: Sequence[Spectrum]) -> Spectrum:
    """The mean of several films' spectra; rings that few films reach are averaged over those."""
    table = np.stack(spectra)
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    mean: Spectrum = np.divide(total, known.sum(axis=0), out=np.full(RINGS, np.nan), where=known.any(axis=0))
    return mean


def with_spectrum(picture: Picture, wanted: Spectrum, rng: np.random.Generator) -> Picture:
    """The film [rows, columns] in [0, 1] with its residual brought to the spectrum ``wanted``, cut to [0, 1]."""
    residual = _residual(picture)
    transform, ring = _transformed(residual)
    own = _mean_by_ring(np.abs(transform) ** 2, ring) ** 0.5
    wanted = np.where(np.isfinite(wanted), wanted, own)
    gain = np.minimum(np.divide(wanted, own, out=np.full(RINGS, _MOST), where=own > 1e-9), _MOST)
    lacking = np.sqrt(np.maximum(np.nan_to_num(wanted) ** 2 - np.nan_to_num(gain * own) ** 2, 0))
    changed = transform * np.nan_to_num(gain, nan=1.0)[ring]
    if lacking.any():
        white, _ = _transformed(rng.standard_normal(picture.shape, dtype=np.float32))
        changed = changed + white * lacking[ring]
    shape = picture.shape
    back = fft.irfft2(changed, s=shape) * np.sqrt(picture.size)
    return np.asarray(np.clip(picture - residual + back, 0, 1), np.float32)


def _residual(picture: Picture) -> Picture:
    smooth = ndimage.gaussian_filter(picture, _SIGMA * scale_of(picture), mode="nearest")
    return np.asarray(picture - smooth, np.float32)


def _transformed(residual: Picture) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.intp]]:
    """Amplitudes (1 per unit of spread of white noise), and the ring of each."""
    rows, columns = residual.shape
    transform = fft.rfft2(residual) / np.sqrt(residual.size)
    scale = scale_of(residual)
    down, across = fft.fftfreq(rows)[:, None] * scale, fft.rfftfreq(columns)[None, :] * scale
    ring = np.minimum((np.hypot(down, across) / _HIGHEST * RINGS).astype(np.intp), RINGS - 1)
    return transform, ring


def _mean_by_ring(power: npt.NDArray[np.floating], ring: npt.NDArray[np.intp]) -> Spectrum:
    count = np.bincount(ring.ravel(), minlength=RINGS)
    total = np.bincount(ring.ravel(), power.ravel(), minlength=RINGS)
    mean: Spectrum = np.divide(total, count, out=np.full(RINGS, np.nan), where=count > 0)
    return mean
