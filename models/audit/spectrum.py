"""The noise of films as an amplitude spectrum, and a film with as much more or less of it as other films have.

The residual is what a Gaussian of one pixel (at 512 px) takes away. Its amplitudes are averaged over rings of equal
spatial frequency, in cycles per 512 px pixel, so that films of different sizes compare (films with fewer pixels are
taken in their own). Ring by
ring a film's residual is amplified by the ratio of two classes' mean amplitudes: it then differs from its own class's
mean as before, and lies about the other class's. Sharp edges of bones and vessels live in the residual too: sharpness
is exchanged along with noise, which is meant, since both tell how a film was made. Greys and coarse structure stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from firstread.models.audit import picture as pictures
from firstread.models.audit.picture import Picture

Spectrum = npt.NDArray[np.float64]
"""[RINGS] root mean square amplitude per ring; NaN where no film reaches so high a frequency."""

RINGS = 32
HIGHEST = 0.75
"""Cycles per pixel of a 512 px film; a film of 512 px ends at 0.5 along its axes and 0.71 in its corners."""

_SIGMA = 1.0
_MOST = 8.0
"""A residual is amplified, or damped, by no more than this."""


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


def gain_between(own: Spectrum, wanted: Spectrum) -> Spectrum:
    """By how much each ring must be amplified to get from one mean spectrum to another; 1 where either is unknown."""
    known = np.isfinite(own) & np.isfinite(wanted) & (own > 1e-9)
    gain: Spectrum = np.divide(wanted, own, out=np.ones(RINGS), where=known)
    return np.clip(gain, 1 / _MOST, _MOST)


def with_gain(picture: Picture, gain: Spectrum) -> Picture:
    """The film [rows, columns] in [0, 1] with its residual amplified ring by ring, cut to [0, 1]."""
    residual = _residual(picture)
    transform, ring = _transformed(residual)
    back = fft.irfft2(transform * gain.astype(np.float32)[ring], s=picture.shape) * np.sqrt(picture.size)
    return np.asarray(np.clip(picture - residual + back, 0, 1), np.float32)


def _scale(picture: Picture) -> float:
    return max(1.0, pictures.scale_of(picture))


def _residual(picture: Picture) -> Picture:
    smooth = ndimage.gaussian_filter(picture, _SIGMA * _scale(picture), mode="nearest")
    return np.asarray(picture - smooth, np.float32)


def _transformed(residual: Picture) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.intp]]:
    """Amplitudes (1 per unit of spread of white noise), and the ring of each."""
    rows, columns = residual.shape
    transform = fft.rfft2(residual) / np.sqrt(residual.size)
    scale = _scale(residual)
    down, across = fft.fftfreq(rows)[:, None] * scale, fft.rfftfreq(columns)[None, :] * scale
    ring = np.minimum((np.hypot(down, across) / HIGHEST * RINGS).astype(np.intp), RINGS - 1)
    return transform, ring


def _mean_by_ring(power: npt.NDArray[np.floating], ring: npt.NDArray[np.intp]) -> Spectrum:
    count = np.bincount(ring.ravel(), minlength=RINGS)
    total = np.bincount(ring.ravel(), power.ravel(), minlength=RINGS)
    mean: Spectrum = np.divide(total, count, out=np.full(RINGS, np.nan), where=count > 0)
    return mean
