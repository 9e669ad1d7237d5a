"""The card: what a bundle is, what it was measured to do, and what it must not be used for, in Markdown.

Every figure comes from JSON that a tool wrote; what was not measured says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from firstread import __version__
from firstread.models.card import sections
from firstread.models.card.description import Description
from firstread.models.card.markdown import NOT_MEASURED, figure, joined, name_of, number, percent, plain, share, table
from firstread.models.card.training import NIH
from firstread.models.eligibility import DEFAULT_MINIMUM_AGE_YEARS
from firstread.models.findings import LABELS

Json = Mapping[str, Any]


def write_card(
    about: Description,
    evaluation: Json | None = None,
    audit: Json | None = None,
    explanation: Json | None = None,
    training: Json | None = None,
    *,
    notes: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
) -> str:
    """The card as Markdown.

    ``evaluation``, ``audit``, ``explanation``, ``training``: JSON of schema ``firstread.evaluation/1``, ``.audit/1``,
    ``.explanation/1`` and ``.training/1``; None where that was not done. ``notes``: sentences for the known failures.
    ``hashes``: SHA-256 of the files that the figures came from, by name.
    """
    lines = [
        f"# {plain(about.name)} {plain(about.version)}",
        "",
        "Orders a reading list. **Not a medical device, not a diagnosis.** A film that it does not raise is not thereby"
        " normal: every film is read.",
        "",
        *_in_short(about, evaluation, audit, explanation, training),
        *_intended(),
        *_site(about),
        *_learned(training),
        *sections.ranking(about, training, evaluation),
        *sections.operating(about, training, evaluation),
        *sections.believing(about, evaluation),
        *sections.groups(about, evaluation),
        *sections.shortcuts(about, audit),
        *sections.looking(about, explanation),
        *sections.experimental(about, training),
        *_failures(about, training, evaluation, notes),
        *_attribution(training),
        *_making(about, training),
        *_hashes(about, evaluation, explanation, hashes or {}),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _in_short(
    about: Description, evaluation: Json | None, audit: Json | None, explanation: Json | None, training: Json | None
) -> list[str]:
    lines = ["## In short", ""]
    judged = sections.judged_labels(about)
    lines.append(f"- Judged on real films: {joined(judged)}. Experimental: {joined(about.experimental)}.")
    for label in judged:
        held = ((training or {}).get("labels", {}).get(label)) or {}
        seen = ((evaluation or {}).get("labels", {}).get(label)) or {}
        row = held if held.get("auroc") else seen
        matched = row.get("auroc_matched") or (row.get("matched") or {}).get("auroc")
        where = "held-out patients" if held.get("auroc") else "evaluated films"
        lines.append(
            f"- {name_of(label)}: AUROC {figure(row.get('auroc'))} on {where}, {figure(matched)} on matched pairs of"
            " them."
        )
    verdicts = {one["label"]: one["verdict"] for one in (audit or {}).get("verdicts", []) if one["label"] in judged}
    told = [f"{name_of(label)} {sections.VERDICTS.get(verdict, plain(verdict))}" for label, verdict in verdicts.items()]
    lines.append(f"- Shortcut audit: {'; '.join(told) or NOT_MEASURED}.")
    pointing = (((explanation or {}).get("all") or {}).get("pointing") or {}).get("hits")
    drawn = ((((explanation or {}).get("phantoms") or {}).get("all") or {}).get("pointing") or {}).get("hits")
    lines.append(
        f"- Map's peak in the lesion: {share(pointing)} on films with drawn boxes, {share(drawn)} on phantoms."
    )
    absent = [label for label in LABELS if label not in about.labels]
    if absent:
        lines.append(f"- Not assessed at all: {joined(absent)}.")
    return [*lines, ""]


def _intended() -> list[str]:
    return [
        "## What it is for, and what not",
        "",
        "- For: putting frontal chest radiographs that look worrisome earlier on the reading list, in a department"
        " where"
        " a radiologist reads every film.",
        f"- Patients: adults. By default films of patients younger than {DEFAULT_MINIMUM_AGE_YEARS:g} years are not"
        " analysed.",
        "- Films: frontal (AP, PA), digital. Lateral views, other parts of the body and films outside the model's"
        " experience are refused, with the reason.",
        "- Not for: diagnosis, a second reading, deciding that a film needs no reading, lowering a priority, screening"
        " without a reader, children, anything but chest films.",
        "",
    ]


def _site(about: Description) -> list[str]:
    """What a site changed, where this is a site's own version (see ``firstread.models.calibration.version``)."""
    told = about.provenance.get("site_calibration")
    if not isinstance(told, Mapping):
        return []
    lines = [
        "## What this site changed",
        "",
        f"Made on {plain(told.get('made', ''))} from {plain(told.get('from', ''))}: the same weights, other calibration"
        f" and operating points, from {told.get('used', NOT_MEASURED)} films of {told.get('patients', NOT_MEASURED)}"
        f" patients of the site ({plain(told.get('table', ''))}, SHA-256 {plain(told.get('table_sha256', ''))[:16]}).",
        "",
    ]
    volume = told.get("films_per_day")
    if volume:
        before, after = (number(told[key] * volume, 1) for key in ("raised_before", "raised_after"))
        lines += [f"Films raised of {volume:g} a day: {before} before, {after} after (cross-validated).", ""]
    else:
        before, after = (percent(told.get(key), 1) for key in ("raised_before", "raised_after"))
        lines += [f"Films raised: {before} before, {after} after (cross-validated).", ""]
    rows = []
    for label, row in (told.get("labels") or {}).items():
        old, new = row.get("threshold", [None, None])
        rows.append(
            [
                name_of(label),
                plain(row.get("why", "")),
                f"{number(old, 3)} → {number(new, 3)}, {plain(row.get('threshold_by', ''))}",
                *(" → ".join(number(one, 3) for one in row.get(key, [None, None])) for key in ("ece", "brier")),
            ]
        )
    return [*lines, *table(("label", "calibration", "operating point", "ECE", "Brier"), rows)]


def _learned(training: Json | None) -> list[str]:
    lines = ["## What it learned from", ""]
    if training is None:
        return [*lines, "Not known to this tool: see whoever made the weights.", ""]
    learned = training["learned"]
    films, patients = learned.get("films"), learned.get("patients")
    sources = ", ".join(plain(one) for one in learned.get("sources") or []) or "source not recorded"
    lines.append(
        f"- {films} real films of {patients} patients ({sources})."
        if films is not None
        else f"- Real films: {NOT_MEASURED}."
    )
    if learned.get("phantoms"):
        lines.append(
            f"- {learned['phantoms']} phantoms: drawn radiographs with known lesions. Training material, never"
            " evidence."
        )
    age = learned.get("age") or {}
    if age.get("known"):
        lines.append(f"- Age {age['low']:g} to {age['high']:g} years, median {age['median']:g}.")
    for what in ("sex", "view"):
        if learned.get(what):
            counted = ", ".join(f"{plain(name)} {count}" for name, count in learned[what].items())
            lines.append(f"- {what.capitalize()}: {counted}.")
    lines.append("")
    rows = [
        [name_of(label), str(count), percent(count / films, 1)]
        for label, count in (learned.get("labels") or {}).items()
        if films
    ]
    return [*lines, *table(("label", "films with it", "share"), rows)]


def _failures(about: Description, training: Json | None, evaluation: Json | None, notes: Sequence[str]) -> list[str]:
    lines = ["## Known failures and limits", ""]
    nih = NIH in ((training or {}).get("learned") or {}).get("sources", [])
    if nih:
        lines += [
            "- Labels were mined from reports by software and are noisy; no radiologist read these films for this"
            " purpose.",
            "- One hospital, frontal films only.",
        ]
    size = about.preprocessing.input_size
    lines.append(f"- It reads a square of {size} x {size} pixels: what is smaller than a few of them is lost.")
    if evaluation is not None:
        refused = evaluation["data"].get("refused") or {}
        if refused.get("count"):
            lines.append(
                f"- The gate refuses {percent(refused.get('share'), 1)} of the evaluated films: these are not analysed,"
                " and the list says so."
            )
    for label in sections.judged_labels(about):
        sensitivity = sections.operating_of(about, label, training, evaluation)[0].get("sensitivity")
        value = sensitivity.get("value") if isinstance(sensitivity, Mapping) else sensitivity
        if isinstance(value, int | float) and value < 0.5:
            lines.append(f"- At its operating point it calls {share(sensitivity)} of the films with {name_of(label)}.")
    lines += [f"- {plain(note)}" for note in (*((training or {}).get("notes") or []), *notes)]
    return [*lines, ""]


def _attribution(training: Json | None) -> list[str]:
    sources = ((training or {}).get("learned") or {}).get("sources", [])
    if NIH not in sources:
        return []
    return [
        "## Data: licence and attribution",
        "",
        "ChestX-ray14 is provided by the NIH Clinical Center (https://nihcc.app.box.com/v/ChestXray-NIHCC); its use is"
        " unrestricted, with attribution and a citation: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers,"
        ' "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and'
        ' Localization of Common Thorax Diseases", IEEE CVPR 2017, pp. 3462-3471. NIH has no part in this model.',
        "",
    ]


def _making(about: Description, training: Json | None) -> list[str]:
    network = about.architecture
    lines = [
        "## How it is made, and how to repeat it",
        "",
        f"- Network: {plain(network.name)}, {len(about.labels)} outputs ({plain(network.output)}), square of"
        f" {about.preprocessing.input_size} pixels, {network.input_channels} channel(s);"
        f" {'class activation maps' if network.has_maps else 'no maps'}.",
        f"- Calibration: {plain(about.calibration.method)}. Canaries: {about.canaries}.",
    ]
    if network.metadata:
        lines.append(f"- Told besides the pixels: {', '.join(map(plain, network.metadata))}.")
    if training is not None:
        storage, recipe = training.get("storage") or {}, training.get("recipe") or {}
        if storage.get("worst_change") is not None:
            lines.append(
                f"- Weights are stored in {plain(storage.get('precision', 'float16'))}, which moved no probability by"
                f" more than {storage['worst_change']:.1e}."
            )
        if recipe.get("name"):
            lines.append(
                f"- Training: `firstread models train --recipe {plain(recipe['name'])}`, seed"
                f" {plain(recipe.get('seed', ''))}."
            )
        if training.get("software"):
            versions = ", ".join(f"{plain(name)} {plain(one)}" for name, one in training["software"].items())
            lines.append(f"- Made with: {versions}.")
    lines += [
        "- Figures: `firstread models evaluate`, `audit` and `explain` with `--json`, then `firstread models card`.",
        "",
    ]
    for one in (training or {}).get("tried") or []:
        lines.append(f"- Tried: {plain(one.get('trial', ''))}: {plain(one.get('gave', ''))}")
    if (training or {}).get("tried"):
        lines.append("")
    toml = ((training or {}).get("recipe") or {}).get("toml")
    if toml and toml.strip():
        fence = "````" if "```" in toml else "```"
        lines += ["The recipe:", "", f"{fence}toml", toml.strip(), fence, ""]
    return lines


def _hashes(
    about: Description, evaluation: Json | None, explanation: Json | None, hashes: Mapping[str, str]
) -> list[str]:
    rows = []
    if about.weights_sha256:
        rows.append(["weights", f"`{about.weights_sha256}`"])
    for words, found, key in (
        ("table of the evaluation", evaluation, "table_sha256"),
        ("list of boxes", explanation, "boxes_sha256"),
    ):
        data = (found or {}).get("data") or {}
        if data.get(key):
            rows.append([words, f"`{plain(data[key])}`"])
    rows += [[plain(name), f"`{plain(digest)}`"] for name, digest in hashes.items()]
    return [
        "## Hashes (SHA-256)",
        "",
        *table(("what", "hash"), rows),
        f"Written by Firstread {__version__} from what its tools measured; no figure was typed by hand.",
        "",
    ]
