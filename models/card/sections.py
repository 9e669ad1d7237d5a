"""The sections of a card that answer a question by figures; each is a list of Markdown lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstread.models.card.description import Description
from firstread.models.card.markdown import (
    NOT_MEASURED,
    counts,
    figure,
    joined,
    name_of,
    number,
    percent,
    plain,
    share,
    table,
)
from firstread.models.findings import NO_FINDING

Json = Mapping[str, Any]

VERDICTS = {
    "shortcut": "**follows how the film was made**",
    "suspect": "partly follows how the film was made",
    "clean": "no sign of a shortcut",
    "not_judged": "not judged",
}


def judged_labels(about: Description) -> list[str]:
    """The labels that are not experimental."""
    return [label for label in about.labels if label not in about.experimental]


def ranking(about: Description, training: Json | None, evaluation: Json | None) -> list[str]:
    """How well it tells films with a finding from films without."""
    lines = ["## How well does it tell films apart?", ""]
    lines += [
        "AUROC: the chance that a film with the label scores higher than one without. 0.5 is guessing, 1 is never"
        " wrong."
        " In brackets its 95 % interval (bootstrap by patient).",
        "",
    ]
    if training is None:
        lines += [f"On films of its training's patients who were held out: {NOT_MEASURED}.", ""]
    else:
        if training.get("method"):
            lines += [plain(training["method"]), ""]
        rows = []
        for label in judged_labels(about):
            row = training["labels"].get(label) or {}
            matched = row.get("auroc_matched")
            pairs = "" if not matched else f" ({matched.get('pairs')} pairs)"
            reason = {"reason": row.get("reason")}
            rows.append(
                [
                    name_of(label),
                    " ".join(filter(None, (figure(row.get("auroc") or reason), counts(row.get("auroc"))))),
                    figure(matched) + pairs,
                ]
            )
        lines += table(("label", "all judged films", "matched pairs"), rows)
    if evaluation is None:
        lines += [f"On a table of films by `firstread models evaluate`: {NOT_MEASURED}.", ""]
    else:
        lines += [_evaluated(evaluation), ""]
        rows = []
        for label in judged_labels(about):
            row = evaluation["labels"].get(label) or {}
            matched = row.get("matched") or {}
            pairs = f" ({matched['pairs']} pairs)" if matched.get("pairs") is not None else ""
            found = row.get("auroc")
            rows.append(
                [
                    name_of(label),
                    " ".join(filter(None, (figure(found), counts(found)))),
                    figure(matched.get("auroc")) + pairs,
                    figure(row.get("auprc")),
                ]
            )
        lines += table(("label", "all films", "matched pairs", "AUPRC"), rows)
    lines += [
        "Matched pairs are the figure to look at: one film with the label and one without, same view, alike in how they"
        " were made. What is lost from all films to matched pairs may be owed to the making of the films, not to"
        " disease.",
        "",
    ]
    return lines


def operating(about: Description, training: Json | None, evaluation: Json | None) -> list[str]:
    """What is called, what is missed, what is raised in vain."""
    lines = ["## What does it call, and what does it miss?", ""]
    rows = []
    for label in judged_labels(about):
        found, source = operating_of(about, label, training, evaluation)
        rows.append(
            [
                name_of(label),
                f"{about.thresholds[label]:.3g}",
                share(found.get("sensitivity")),
                share(found.get("specificity")),
                _alerts(found.get("specificity")),
                source,
            ]
        )
    lines += table(
        ("label", "called from", "sensitivity", "specificity", "called wrongly of 100 films without it", "measured on"),
        rows,
    )
    if training is not None and training.get("operating"):
        lines += [plain(training["operating"]), ""]
        lines += [
            "Where they were chosen on the very films of that table, sensitivity and specificity are flattered.",
            "",
        ]
    normal = (evaluation or {}).get("normal_abnormal")
    if not normal or normal.get("reason"):
        lines += [f"Normal against abnormal: {plain(normal['reason']) if normal else NOT_MEASURED}.", ""]
        return lines
    lines += [
        f"Normal against abnormal ({normal['positives']} films with a finding, {normal['negatives']} without): AUROC"
        f" {figure(normal.get('auroc'))}. PPV and NPV hold for this table's share of abnormal films, not for a"
        " hospital's.",
        "",
    ]
    ways: list[tuple[str, Json | None]] = []
    if _same(_threshold_of(evaluation, NO_FINDING), about.thresholds.get(NO_FINDING)):
        ways.append(("No Finding is not called", normal.get("operating")))
    if all(_same(_threshold_of(evaluation, label), about.thresholds[label]) for label in judged_labels(about)):
        ways.append(("a finding is called", normal.get("any_finding")))
    ways += [(f"{percent(float(at))} sensitivity", row) for at, row in (normal.get("at_sensitivity") or {}).items()]
    lines += table(
        ("abnormal when", "sensitivity", "specificity", "PPV", "NPV"),
        [
            [words, *(share(row.get(key)) for key in ("sensitivity", "specificity", "ppv", "npv"))]
            for words, row in ways
            if row
        ],
    )
    return lines


def operating_of(about: Description, label: str, training: Json | None, evaluation: Json | None) -> tuple[Json, str]:
    """Sensitivity and specificity at the label's operating point, and what they were measured on.

    Evaluated films count first, then those that judged the training; empty where another operating point was in force.
    """
    seen = (evaluation or {}).get("labels", {}).get(label) or {}
    if seen.get("operating") and _same(seen.get("threshold"), about.thresholds[label]):
        return seen["operating"], "evaluated films"
    held = (training or {}).get("labels", {}).get(label) or {}
    if held.get("sensitivity") is not None and _same(held.get("threshold"), about.thresholds[label]):
        return held, "judged films of the training"
    return {}, NOT_MEASURED


def believing(about: Description, evaluation: Json | None) -> list[str]:
    """Whether a probability means what it says."""
    lines = ["## Does a probability mean what it says?", ""]
    rows = []
    for label in judged_labels(about):
        row = (evaluation or {}).get("labels", {}).get(label) or {}
        found = row.get("calibration") if _same(row.get("threshold"), about.thresholds[label]) else None
        if found:
            rows.append(
                [
                    name_of(label),
                    number(found["ece"], 3),
                    number(found["brier"], 3),
                    number(found["brier_of_prevalence"], 3),
                ]
            )
    if not rows:
        lines += [f"Calibration on evaluated films: {NOT_MEASURED}.", ""]
    lines += table(("label", "mean error (ECE)", "Brier score", "Brier score of always saying the prevalence"), rows)
    lines += [
        "A probability holds where a finding is as common as in the films that calibrated it; where it is rarer, it"
        " is too"
        " high. `firstread models calibrate --prevalence` puts that right for a site.",
        "",
    ]
    return lines


def groups(about: Description, evaluation: Json | None) -> list[str]:
    """Whom it works for."""
    lines = ["## Does it work as well for everyone?", ""]
    labels = judged_labels(about)
    rows = []
    for group in (evaluation or {}).get("groups", []):
        cells = []
        for label in labels:
            found = (group["labels"].get(label) or {}).get("auroc")
            # The reason (too few films) is the same in every such cell: said once, below the table.
            cells.append(figure(found) if found and found.get("value") is not None else "too few films")
        rows.append([plain(f"{group['by']} {group['level']}"), str(group["films"]), *cells])
    if not rows:
        return [*lines, f"By sex, age and view: {NOT_MEASURED}.", ""]
    lines += table(("group", "films", *(f"AUROC {name_of(label)}" for label in labels)), rows)
    return [*lines, "Wide intervals: a difference between groups is shown only where they do not overlap.", ""]


def shortcuts(about: Description, audit: Json | None) -> list[str]:
    """Disease, or how the film was made."""
    lines = ["## Does it see disease, or how the film was made?", ""]
    if audit is None:
        return [*lines, f"Shortcut audit (`firstread models audit`): {NOT_MEASURED}.", ""]
    verdicts = [one for one in audit.get("verdicts", []) if one["label"] in about.labels]
    judged = [one for one in verdicts if one["verdict"] != "not_judged"]
    rows = []
    for one in judged:
        found = one.get("figures") or {}
        rows.append(
            [
                name_of(one["label"]) + (" (experimental)" if one["label"] in about.experimental else ""),
                VERDICTS.get(one["verdict"], plain(one["verdict"])),
                figure(found.get("auroc")),
                figure(found.get("nuisances")),
                figure(found.get("paired")) + (f" ({found['pairs']} pairs)" if found.get("pairs") is not None else ""),
                share(found.get("flips")),
            ]
        )
    lines += table(
        (
            "label",
            "verdict",
            "its AUROC",
            "AUROC of the film's making alone",
            "on matched pairs",
            "results that a mild change turns",
        ),
        rows,
    )
    lines += [f"- {name_of(one['label'])}: {plain(one['sentence'])}" for one in judged]
    lines += [""] if judged else []
    rest = [one["label"] for one in verdicts if one["verdict"] == "not_judged"]
    if rest:
        lines += [f"Not judged, for want of films: {joined(rest)}.", ""]
    return lines


def looking(about: Description, explanation: Json | None) -> list[str]:
    """Whether its maps point at the lesion."""
    lines = ["## Does it look where the lesion is?", ""]
    if not about.architecture.has_maps:
        return [*lines, "It has no maps: it cannot show where it saw anything.", ""]
    if explanation is None:
        return [*lines, f"Maps (`firstread models explain`): {NOT_MEASURED}.", ""]
    method = explanation["method"]
    tolerance = number(method.get("tolerance_cells"), 1)
    drawn = explanation.get("phantoms")
    if explanation.get("data"):
        lines += [f"On {explanation['data']['films']} films with boxes that people drew:", ""]
        lines += _pointing({**explanation["labels"], "all findings": explanation["all"]}, None)
    else:
        lines += [f"On films with boxes that people drew: {NOT_MEASURED}.", ""]
    if drawn:
        lines += [
            f"On {drawn['drawn']} phantoms (drawn films with one known lesion each; no evidence about patients):",
            "",
            *_pointing(drawn["labels"], drawn["target"]),
        ]
    else:
        lines += [f"On phantoms: {NOT_MEASURED}.", ""]
    lines += [f"Counted as in the lesion: the map's peak within its box or {tolerance} cells of the map beside it.", ""]
    return [*lines, *_randomised(explanation.get("randomisation"))]


def experimental(about: Description, training: Json | None) -> list[str]:
    """The labels that nothing on real films speaks for."""
    if not about.experimental:
        return []
    lines = [
        "## Experimental labels",
        "",
        f"{joined(about.experimental)}.",
        "",
        "No evidence on real films supports these. They are marked experimental in the report and on the list, and"
        " raise"
        " nothing unless a site's policy says so.",
        "",
    ]
    drawn = (training or {}).get("phantoms") or {}
    rows = [
        [
            name_of(label),
            f"{figure(row.get('auroc'))} {counts(row.get('auroc'))}".strip(),
            share(row.get("sensitivity")),
            share(row.get("specificity")),
        ]
        for label, row in drawn.items()
    ]
    if rows:
        lines += ["On phantoms that it had not seen (drawn films: no evidence about patients):", ""]
    return [*lines, *table(("label", "AUROC", "sensitivity", "specificity"), rows)]


def _pointing(labels: Mapping[str, Json | None], target: float | None) -> list[str]:
    rows = []
    for label, row in labels.items():
        if row is None:
            continue
        if row.get("reason") or not row.get("pointing"):
            rows.append([name_of(label), plain(row.get("reason") or NOT_MEASURED), "", "", *([""] if target else [])])
            continue
        points = row["pointing"]
        hits = points["hits"]
        called = points["when_called"]
        cells = [
            name_of(label),
            f"{hits['count']} of {hits['total']}, {share(hits)}",
            f"{called['count']} of {called['total']}",
            percent(points["chance"]),
        ]
        if target:
            cells.append("reached" if hits["value"] >= target else "**missed**")
        rows.append(cells)
    columns = ["finding", "map's peak in the lesion", "of those called", "pointing by chance"]
    return table([*columns, *([f"{10 * target:.0f} of 10"] if target else [])], rows)


def _randomised(found: Json | None) -> list[str]:
    if not found or not found.get("stages"):
        why = f" ({plain(found['why_not'])})" if found and found.get("why_not") else ""
        return [f"Randomisation test of the maps: {NOT_MEASURED}{why}.", ""]
    head, last = found["stages"][0], found["stages"][-1]
    verdict = "depend on what was learned" if found.get("depends") else "**hardly depend on what was learned**"
    return [
        f"Randomisation test: the maps {verdict}. Rank correlation with the trained network's maps is"
        f" {number(head['rank_correlation'])} when the head is random, {number(last['rank_correlation'])} when"
        " everything"
        f" is (1 would mean the same map); SSIM {number(head['ssim'])} and {number(last['ssim'])}.",
        "",
    ]


def _evaluated(evaluation: Json) -> str:
    data = evaluation["data"]
    refused = data.get("refused", {}).get("count")
    return (
        f"{plain(evaluation['bundle']['name'])} {plain(evaluation['bundle']['version'])} on {data['films']} films of"
        f" {data['patients']} patients ({plain(str(data['table']).rsplit('/', 1)[-1])}); the gate would refuse"
        f" {refused if refused is not None else NOT_MEASURED}, they are counted. If the model learned from any of these"
        " films, the figures are too good."
    )


def _alerts(specificity: object) -> str:
    value = specificity.get("value") if isinstance(specificity, Mapping) else specificity
    return NOT_MEASURED if not isinstance(value, int | float) else number(100 * (1 - value), 1)


def _threshold_of(evaluation: Json | None, label: str) -> object:
    return ((evaluation or {}).get("labels", {}).get(label) or {}).get("threshold")


def _same(first: object, second: object) -> bool:
    if not isinstance(first, int | float) or not isinstance(second, int | float):
        return False
    return abs(first - second) <= 1e-5 * max(abs(first), abs(second))
