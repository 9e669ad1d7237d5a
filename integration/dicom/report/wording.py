"""The sentences of a report, as a radiologist reads them. Pure: an assessment in, words out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite

from firstread.models.findings import FINDING_BY_LABEL, NO_FINDING
from firstread.models.prediction import Assessment, FindingResult, Priority

DISCLAIMER = "AI result, not a diagnosis."
NOT_EXHAUSTIVE = "Disease outside the assessed findings was not looked for and is not excluded."
EXPERIMENTAL = "Experimental finding: its accuracy is not established."

_BLANKS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]+")


def clean(text: str) -> str:
    """Text of any origin as one line that every character set and viewer takes."""
    return _BLANKS.sub(" ", text).strip()


def sentence(text: str) -> str:
    """``pneumothorax 0.81 above 0.60`` as a sentence: first letter upper case, a full stop at its end."""
    line = clean(text)
    if not line:
        return ""
    line = line[0].upper() + line[1:]
    return line if line[-1] in ".!?" else line + "."


def number(probability: float, beside: float | None = None) -> str:
    """A probability to two decimals, or as many as keep it on its own side of the number ``beside``."""
    for digits in (2, 3, 4, 6):
        text = f"{probability:.{digits}f}"
        if beside is None or (float(text) >= beside) == (probability >= beside):
            return text
    return repr(probability)


def is_assessed(finding: FindingResult) -> bool:
    """True when there is a probability that can be reported: not None, not NaN, within [0, 1]."""
    return finding.probability is not None and isfinite(finding.probability) and 0 <= finding.probability <= 1


def is_present(finding: FindingResult, assessment: Assessment) -> bool:
    """Above its operating point. No Finding never beside a finding that is: both at once would contradict."""
    if not (finding.present and is_assessed(finding)):
        return False
    return finding.label != NO_FINDING or not any(
        other.present and other.label != NO_FINDING for other in assessment.findings
    )


def in_reading_order(assessment: Assessment) -> list[FindingResult]:
    """Findings as a reader wants them: what is present first, most urgent and most probable first, No Finding last.

    What was not assessed stands behind what was.
    """
    return sorted(
        assessment.findings,
        key=lambda finding: (
            finding.label == NO_FINDING,
            not is_present(finding, assessment),
            not is_assessed(finding),
            -(finding.raises or 0),
            -(finding.probability or 0) if is_assessed(finding) else 0,
            finding.label,
        ),
    )


def _display(label: str) -> str:
    known = FINDING_BY_LABEL.get(label)
    return known.display if known else clean(label)


def summary(assessment: Assessment) -> list[str]:
    """What a reader must know first, one sentence each."""
    if assessment.reason is not None:
        why = sentence(f"not analysed: {assessment.reason.text}")
        return [why, "Nothing can be concluded about the images."]
    present = [
        finding
        for finding in in_reading_order(assessment)
        if finding.label != NO_FINDING and is_present(finding, assessment)
    ]
    if present:
        listed = ", ".join(
            f"{_display(finding.label)} {number(finding.probability or 0, finding.threshold)}"
            + (" (experimental)" if finding.experimental else "")
            for finding in present
        )
        sentences = [f"Above the operating point: {listed}."]
        return [*sentences, *_left_out(assessment)]
    # What could not be read stands before a negative sentence, so that nobody stops reading at it.
    return [*_left_out(assessment), *_none_above(assessment), NOT_EXHAUSTIVE]


def _none_above(assessment: Assessment) -> list[str]:
    compared = [f for f in assessment.findings if _is_pathology(f) and is_assessed(f) and f.threshold is not None]
    if not compared:
        return ["None of the findings could be assessed."]
    if len(compared) == 1:
        return ["The one assessed finding is not above its operating point."]
    return [f"None of the {len(compared)} assessed findings is above its operating point."]


def _left_out(assessment: Assessment) -> list[str]:
    """What the sentences before do not speak of: a reader must not take silence for an answer."""
    sentences = []
    missing = [_display(f.label) for f in assessment.findings if _is_pathology(f) and not is_assessed(f)]
    if missing:
        sentences.append(f"Not assessed: {', '.join(missing)}.")
    unread = sum(image.reason is not None for image in assessment.images)
    if unread:
        sentences.append(f"{unread} of {len(assessment.images)} images not analysed.")
    return sentences


def _is_pathology(finding: FindingResult) -> bool:
    return finding.label != NO_FINDING


def finding_comments(finding: FindingResult, assessment: Assessment) -> list[str]:
    """What stands beside one finding: why it was not assessed, that it is experimental, what it asks for."""
    comments = []
    if not is_assessed(finding):
        comments.append(_not_assessed(finding))
    elif finding.label == NO_FINDING:
        comments.append(NOT_EXHAUSTIVE)
    if finding.experimental:
        comments.append(EXPERIMENTAL)
    if finding.raises is not None and finding.raises > Priority.ROUTINE and is_present(finding, assessment):
        comments.append(f"Asks for priority {finding.raises.name}.")
    return comments


def _not_assessed(finding: FindingResult) -> str:
    why = clean(finding.not_assessed) or "no result for this finding"
    return sentence(why if why.lower().startswith("not assessed") else f"not assessed: {why}")


def priority_sentence(assessment: Assessment) -> str:
    """Why the study has its priority; empty when nothing was said."""
    return sentence(assessment.priority_reason)


def distinct(sentences: Iterable[str]) -> list[str]:
    """Non-empty sentences, each once, in order."""
    return list(dict.fromkeys(filter(None, (sentence(text) for text in sentences))))
