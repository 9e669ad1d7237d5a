"""Prevalence shift: what probabilities must become where a finding is rarer than in the films they were fitted on.

If a probability is right at prevalence ``was``, and only how often the finding occurs changes while how it looks does
not, Bayes' rule moves the log odds by a constant: ``logit(now) - logit(was)`` (Saerens, Latinne and Decaestecker,
"Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 14(1), 2002, equation 2.4;
Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, theorem 2). Slope and ranking stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import logit

from firstread.models.calibration.fitting import Flags, Numbers


def prior_shift(now: float, was: float) -> float:
    """What is added to the log odds when the prevalence is ``now`` instead of ``was``.

    Raises:
        ValueError: a prevalence outside (0, 1).
    """
    for value in (now, was):
        if not 0 < value < 1:
            raise ValueError(f"a prevalence of {value} cannot be meant: it lies between 0 and 1")
    return float(logit(now) - logit(was))


def film_weights(target: Flags, known: Flags, stated: Mapping[int, float]) -> Numbers:
    """How many films of the site each film of a table stands for [N], mean 1, so that every stated prevalence holds.

    ``stated``: column to prevalence. Several at once are met by raking (iterative proportional fitting; Deming and
    Stephan, Annals of Mathematical Statistics 11(4), 1940): each label in turn, until all hold. Films on which a label
    is unknown keep their weight in its turn.

    Raises:
        ValueError: a label has films of one kind only, or the prevalences cannot hold together.
    """
    weight = np.ones(len(target))
    groups = []
    for column, prevalence in stated.items():
        with_label, without = target[:, column] & known[:, column], ~target[:, column] & known[:, column]
        if not with_label.any() or not without.any():
            raise ValueError("a prevalence can be stated only for a label of which there are films with and without")
        groups.append((with_label, without, prevalence))
    for _ in range(500):
        worst = 0.0
        for with_label, without, prevalence in groups:
            present, absent = float(weight[with_label].sum()), float(weight[without].sum())
            total = present + absent
            worst = max(worst, abs(present / total - prevalence))
            weight[with_label] *= prevalence * total / present
            weight[without] *= (1 - prevalence) * total / absent
        weight *= len(weight) / weight.sum()
        if worst < 1e-9:
            return weight
    raise ValueError("the stated prevalences cannot hold together on these films: state fewer of them")
