"""Operating points: whose they are, on which scale they stand, and what is said where nobody knows any."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torchxrayvision as xrv

from firstread.models.importing.labels import COLLECTIONS, matched
from firstread.models.importing.points import XRAYVISION_PUBLISHED, on_one_sigmoid, operating_points

LABELS = matched(COLLECTIONS["torchxrayvision"])


def test_the_published_points_are_the_librarys_own_in_its_order() -> None:
    entry = xrv.models.model_urls["resnet50-res512-all"]
    assert np.array_equal(XRAYVISION_PUBLISHED, entry["op_threshs"], equal_nan=True)
    assert COLLECTIONS["torchxrayvision"] == tuple(entry["labels"])


def test_the_published_points_stand_on_a_sigmoid_taken_twice() -> None:
    """All lie where only sigmoid(sigmoid(x)) can lie; the library's other networks have points far below."""
    entry = xrv.models.model_urls["resnet50-res512-all"]
    twice = np.array(entry["op_threshs"] + entry["ppv80_thres"])
    highest = 1 / (1 + math.exp(-1))
    assert np.nanmin(twice) > 0.5
    assert np.nanmax(twice) == pytest.approx(highest, abs=1e-5)
    assert np.nanmax(xrv.models.model_urls["densenet121-res224-all"]["op_threshs"]) < 0.5


def test_published_points_are_moved_to_the_sigmoid_that_is_reported_and_it_is_said() -> None:
    points = operating_points(LABELS, given={}, stored=(), published=True)
    for label, value in points.values.items():
        once = 1 / (1 + math.exp(-value))
        assert once == pytest.approx(XRAYVISION_PUBLISHED[LABELS.index(label)])
        assert value < 0.16
    assert "sigmoid taken twice" in " ".join(points.remarks)


def test_points_kept_beside_the_weights_are_moved_only_where_they_are_the_published_ones() -> None:
    kept = operating_points(LABELS, given={}, stored=XRAYVISION_PUBLISHED, published=False)
    assert kept.values["Hernia"] == pytest.approx(on_one_sigmoid(0.5020846))
    own = [0.52] * 18
    assert set(operating_points(LABELS, given={}, stored=own, published=True).values.values()) == {0.52}


def test_the_users_points_come_before_all_others_and_gaps_are_named() -> None:
    stored = [math.nan, 0.3, *[0.0] * 16]
    points = operating_points(LABELS, given={"Hernia": 0.7, "No Finding": 0.4}, stored=stored, published=False)
    assert points.values["Hernia"] == 0.7
    assert points.values["Consolidation"] == 0.3
    assert points.values["Atelectasis"] == 0.5
    assert points.sources["Atelectasis"] == "none"
    remarks = " ".join(points.remarks)
    assert "Atelectasis" in remarks
    assert "means nothing" in remarks
    assert "given for No Finding, which these weights do not assess" in remarks
    assert set(points.values) == {label for label in LABELS if label}
