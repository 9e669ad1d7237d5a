"""Published AUROC per label of NIH ChestX-ray14: other data, other split, to be shown beside a figure, never as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CAUTION = "other data, other split"


@dataclass(frozen=True)
class Published:
    """``auroc`` per label as printed in ``source``; ``split`` says on what it was measured."""

    name: str
    source: str
    split: str
    auroc: Mapping[str, float]


PUBLISHED: tuple[Published, ...] = (
    Published(
        "NIH 2017, ResNet50, 8 labels",
        "Wang et al., ChestX-ray8, CVPR 2017 (arXiv:1705.02315), multi-label classification, ResNet-50",
        "NIH's own random split of ChestX-ray8",
        {
            "Atelectasis": 0.7069,
            "Cardiomegaly": 0.8141,
            "Effusion": 0.7362,
            "Infiltration": 0.6128,
            "Mass": 0.5609,
            "Nodule": 0.7164,
            "Pneumonia": 0.6333,
            "Pneumothorax": 0.7891,
        },
    ),
    Published(
        "NIH 2017, 14 labels",
        "Wang et al., as quoted in table 2 of Rajpurkar et al., CheXNet (arXiv:1711.05225)",
        "NIH's split of ChestX-ray14",
        {
            "Atelectasis": 0.716,
            "Cardiomegaly": 0.807,
            "Consolidation": 0.708,
            "Edema": 0.835,
            "Effusion": 0.784,
            "Emphysema": 0.815,
            "Fibrosis": 0.769,
            "Hernia": 0.767,
            "Infiltration": 0.609,
            "Mass": 0.706,
            "Nodule": 0.671,
            "Pleural_Thickening": 0.708,
            "Pneumonia": 0.633,
            "Pneumothorax": 0.806,
        },
    ),
    Published(
        "CheXNet 2017, DenseNet121",
        "Rajpurkar et al., CheXNet, table 2 (arXiv:1711.05225)",
        "the authors' own random split by patient",
        {
            "Atelectasis": 0.8094,
            "Cardiomegaly": 0.9248,
            "Consolidation": 0.7901,
            "Edema": 0.8878,
            "Effusion": 0.8638,
            "Emphysema": 0.9371,
            "Fibrosis": 0.8047,
            "Hernia": 0.9164,
            "Infiltration": 0.7345,
            "Mass": 0.8676,
            "Nodule": 0.7802,
            "Pleural_Thickening": 0.8062,
            "Pneumonia": 0.7680,
            "Pneumothorax": 0.8887,
        },
    ),
)

SEED_PROJECT = "The original project's figures per label are not shown: no document at hand states them."
"""Why there is no column for the project that this one began with."""
