"""An audit as JSON for programs and for the card: stable names, no NaN.

Schema ``firstread.audit/1``. A figure is ``{"value", "low", "high", "positives", "negatives"}``, a share ``{"value",
"low", "high", "count", "total"}``, a correlation ``{"value", "low", "high", "safe"}``; ``low`` and ``high`` bound 95 %.
What could not be had is null.

::

    schema         "firstread.audit/1"
    verdicts       [{label, experimental, verdict, sentence, figures, signs}]      one per label that was asked for
                   verdict    "shortcut" | "suspect" | "clean" | "not_judged"
                   figures    positives, negatives, auroc, nuisances, follows (correlation), pairs (count), paired,
                              lost_by_noise (figure), flips (largest share under a mild change) and flips_by (its key),
                              device_flips (largest share with a device drawn in) and device_flips_by,
                              outside_thorax (share), outside_area (share); null where not measured
                   signs      [{name, grade, caused, sentence}]; grade "none" | "weak" | "strong" | "not measured"
    made_at, firstread, bundle, data          as in an evaluation (``firstread.evaluation/1``)
    audited        films, patients, altered, thorax_found (of those altered)
    rules          the thresholds behind the verdicts, by name (see ``firstread.models.audit.rules``)
    alterations    [{key, family, words, mild}]                      mild ones count in the verdict
    labels.<name>  reason (null when judged), threshold, auroc
                   nuisances {logistic, boosting, follows, alone [{name, meaning, auroc, follows}]}
                   person    [{name, meaning, auroc, follows}]          age and sex: shown, never called a shortcut
                   within    [{by, groups {level: figure or null}, pooled, lost}]
                   pairs     [{kind, on [..], calliper, pairs, figure, left, imbalance [{name, before, after}]}]
                   effects   [{key, films, median, p95, with_label, without_label, shift, shift_low, shift_high,
                               flips, raised, refused}]
                   exchange  {positives, negatives, towards, before, after, lost}
                   outside   {films, share, area, density, low, high}
                   in_lesion {phantoms, share, area}                     drawn lesions: no evidence about patients
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from firstread import __version__
from firstread.models.audit.audit import Audit, LabelAudit, usable_pairs
from firstread.models.audit.counterfactual import Effect
from firstread.models.audit.nuisances import Alone
from firstread.models.audit.rules import Rules
from firstread.models.audit.signs import device_effects, mild_effects
from firstread.models.bundle import Bundle
from firstread.models.data.nuisance import meaning
from firstread.models.evaluation.as_json import Source, bundle_json, data_json, without_nan
from firstread.models.evaluation.score import Scores

SCHEMA = "firstread.audit/1"


def as_json(audit: Audit, bundle: Bundle, scores: Scores, source: Source, now: datetime) -> dict[str, Any]:
    """The whole audit as plain values. ``scores``: of all films, those left out of the audit too. ``now``: the time.

    Raises:
        DataError: the table of labels is no longer there.
    """
    whole: dict[str, Any] = {
        "schema": SCHEMA,
        "verdicts": verdicts_json(audit),
        "made_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "firstread": __version__,
        "bundle": bundle_json(bundle, scores.engine),
        "data": data_json(scores, source),
        **figures_json(audit),
    }
    plain: dict[str, Any] = without_nan(whole)
    return plain


def verdicts_json(audit: Audit) -> list[dict[str, Any]]:
    """What the card takes over: per label the verdict, its sentence and the figures behind it."""
    return [
        {
            "label": one.label,
            "experimental": one.experimental,
            "verdict": one.verdict,
            "sentence": one.sentence,
            "figures": _behind(one, audit.rules),
            "signs": [asdict(sign) for sign in one.signs],
        }
        for one in audit.labels
    ]


def figures_json(audit: Audit) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "audited": {
            "films": len(audit.films),
            "patients": len({film.patient for film in audit.films}),
            "altered": len(audit.altered),
            "thorax_found": audit.thorax_found,
        },
        "rules": audit.rules.as_table(),
        "alterations": [
            {"key": each.key, "family": each.family, "words": each.words, "mild": each.mild}
            for each in audit.alterations
        ],
        "labels": {one.label: _label(one) for one in audit.labels},
    }


def _behind(one: LabelAudit, rules: Rules) -> dict[str, Any]:
    paired = next(iter(usable_pairs(one.pairs, rules)), None)
    worst = _worst(mild_effects(one.effects, rules))
    device = _worst(device_effects(one.effects, rules))
    return {
        "positives": one.positives,
        "negatives": one.negatives,
        "auroc": None if one.auroc is None else asdict(one.auroc),
        "nuisances": None if one.nuisances is None else asdict(one.nuisances.together),
        "follows": None if one.nuisances is None else asdict(one.nuisances.follows),
        "pairs": max((each.pairs for each in one.pairs), default=0) if paired is None else paired.pairs,
        "paired": None if paired is None or paired.figure is None else asdict(paired.figure),
        "lost_by_noise": None if one.exchange is None else asdict(one.exchange.lost),
        "flips": None if worst is None or worst.flips is None else asdict(worst.flips),
        "flips_by": None if worst is None else worst.key,
        "device_flips": None if device is None or device.flips is None else asdict(device.flips),
        "device_flips_by": None if device is None else device.key,
        "outside_thorax": None if one.outside is None else one.outside.share,
        "outside_area": None if one.outside is None else one.outside.area,
    }


def _worst(effects: Sequence[Effect]) -> Effect | None:
    turned = [effect for effect in effects if effect.flips is not None]
    return max(turned, key=lambda effect: effect.flips.value if effect.flips else 0.0, default=None)


def _label(one: LabelAudit) -> dict[str, Any]:
    nuisances = one.nuisances
    return {
        "reason": one.reason or None,
        "threshold": one.threshold,
        "auroc": None if one.auroc is None else asdict(one.auroc),
        "nuisances": None
        if nuisances is None
        else {
            "logistic": asdict(nuisances.logistic),
            "boosting": asdict(nuisances.boosting),
            "follows": asdict(nuisances.follows),
            "alone": _alone(nuisances.alone),
        },
        "person": _alone(one.person),
        "within": [
            {
                "by": each.by,
                "groups": {level: None if figure is None else asdict(figure) for level, figure in each.groups.items()},
                "pooled": each.pooled,
                "lost": asdict(each.lost),
            }
            for each in one.within
        ],
        "pairs": [asdict(each) for each in one.pairs],
        "effects": [asdict(effect) for effect in one.effects],
        "exchange": None if one.exchange is None else asdict(one.exchange),
        "outside": None if one.outside is None else asdict(one.outside),
        "in_lesion": None if one.in_lesion is None else asdict(one.in_lesion),
    }


def _alone(variables: Sequence[Alone]) -> list[dict[str, Any]]:
    return [{**asdict(one), "meaning": meaning(one.name)} for one in variables]
