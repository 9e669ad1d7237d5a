"""Calibration and operating points: what a score means, and from where on it counts."""

from firstread.models.calibration.fitting import FEWEST, METHODS, Scored, calibrate, platt, probabilities, temperature
from firstread.models.calibration.points import operating_points

__all__ = ["FEWEST", "METHODS", "Scored", "calibrate", "operating_points", "platt", "probabilities", "temperature"]
