"""Calibration and operating points: what a score means, and from where on it counts."""

from firstread.models.calibration.fitting import (
    FEWEST,
    METHODS,
    Scored,
    calibrate,
    fitted_on,
    platt,
    probabilities,
    temperature,
)
from firstread.models.calibration.points import operating_points

__all__ = [
    "FEWEST",
    "METHODS",
    "Scored",
    "calibrate",
    "fitted_on",
    "operating_points",
    "platt",
    "probabilities",
    "temperature",
]
