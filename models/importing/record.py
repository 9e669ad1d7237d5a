"""What is known of an imported bundle, for its provenance and card: its origin, and that nobody judged it here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firstread.models.findings import LABELS
from firstread.models.importing.origins import XRAYVISION, Origin
from firstread.models.importing.points import XRAYVISION_PUBLISHED, Points
from firstread.models.preprocess import Preprocessing


@dataclass(frozen=True)
class Facts:
    """All that is told of an import. ``outputs``: each output's name in the original and its label, if it has one."""

    file: str
    sha256: str
    origin: Origin
    outputs: tuple[tuple[str, str | None], ...]
    output: str
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    points: Points
    precision: str
    read: Mapping[str, object]
    remarks: tuple[str, ...]
    note: str

    @property
    def not_assessed(self) -> tuple[str, ...]:
        """Labels of the product that these weights do not know."""
        known = {label for _, label in self.outputs}
        return tuple(label for label in LABELS if label not in known)


def provenance(facts: Facts) -> dict[str, Any]:
    """The bundle's provenance as a table of plain values."""
    table: dict[str, Any] = {
        "kind": "imported",
        "trained_on": "not known to this product: see the weights' own documentation",
        "source": {
            "file": facts.file,
            "sha256": facts.sha256,
            "architecture": facts.origin.arch,
            "preparation": facts.origin.source,
            "precision": facts.precision,
            **{key: value for key, value in facts.read.items() if value},
        },
        "reported": _reported(facts),
        "outputs": [{"name": name or "(none)", "label": label or "(left out)"} for name, label in facts.outputs],
        "left_out": [name or f"output {i}" for i, (name, label) in enumerate(facts.outputs) if label is None],
        "not_assessed": list(facts.not_assessed),
        "operating_points": dict(facts.points.sources),
        "remarks": list(facts.remarks),
    }
    if facts.note:
        table["note"] = facts.note
    if any("torchxrayvision" in source for source in facts.points.sources.values()):
        table["operating_points_published"] = {
            label: XRAYVISION_PUBLISHED[i]
            for i, (_, label) in enumerate(facts.outputs)
            if label is not None and not math.isnan(XRAYVISION_PUBLISHED[i])
        }
    return table


def card(name: str, version: str, facts: Facts) -> str:
    """The bundle's card as Markdown: what it is, and that it has not been evaluated here."""
    used = [(one, label) for one, label in facts.outputs if label is not None]
    rows = "\n".join(
        f"| {label} | {one} | {facts.points.values[label]:.4g} | {_source(facts.points.sources[label])} |"
        for one, label in used
    )
    left = ", ".join(one or f"output {i}" for i, (one, label) in enumerate(facts.outputs) if label is None) or "none"
    remarks = "\n".join(f"- {remark}" for remark in facts.remarks) or "- none"
    p = facts.preprocessing
    cut = f", shorter side to {p.resize_to} px first" if p.fit == "resize_then_crop" else ""
    return f"""# {name} {version}

Imported weights. **Nothing is known here of how well they work, on whose films, or at which operating points.** Every
label is experimental: it raises nothing on the worklist until the site's own policy says so. Evaluate and calibrate
them on the site's films first (`firstread models evaluate`, `firstread models audit`, `firstread models calibrate`).
Not a medical device.

{f"Note: {facts.note}" if facts.note else ""}

## Where it comes from

- file `{facts.file}`, SHA-256 `{facts.sha256}`
- read as {facts.origin.arch} ({facts.origin.source}); stored in {facts.precision}
- prepared: {p.fit} to {p.input_size} px{cut}, {p.resample}, {"8 bits" if p.eight_bit else "full depth"}, greys not
  equalised; mean {_numbers(facts.mean)}, standard deviation {_numbers(facts.std)}
- {_reported(facts)}

## Labels

| label | output | operating point | which comes from |
|---|---|---|---|
{rows}

Left out, because the product has no such label: {left}.
Not assessed, because the weights do not know them: {", ".join(facts.not_assessed) or "none"}. That is never zero: they
are absent from every result.

## Remarks

{remarks}
"""


def _source(source: str) -> str:
    return "nobody: a placeholder" if source == "none" else source


def _reported(facts: Facts) -> str:
    if facts.output == "softmax":
        return "reported is the softmax over all outputs, uncalibrated"
    if facts.origin.arch == XRAYVISION:
        return "reported is the sigmoid of each logit, uncalibrated, not the library's op_norm scale"
    return "reported is the sigmoid of each logit, uncalibrated"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
