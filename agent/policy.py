"""The policy in force for one study: the site's table over the bundle's operating points, overrides on top."""

from __future__ import annotations

from collections.abc import Mapping

from firstread.agent.config import DEFAULT_PRIORITIES, FindingRule, Settings, TriageOverride
from firstread.agent.triage import FindingPolicy
from firstread.models.bundle import Bundle
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.prediction import StudyIdentity

CANNOT_LOCATE = "this model cannot show where a finding lies: no heat map, no region"


def policy_for(
    settings: Settings, bundle: Bundle, identity: StudyIdentity, calling_ae_title: str
) -> Mapping[str, FindingPolicy]:
    """What each label does for this study; a label that the bundle does not assess is in it all the same."""
    rules = [settings.triage.findings]
    rules += [one.findings for one in settings.triage.overrides if _selects(one, identity, calling_ae_title)]
    return {
        label: _policy(label, [each[label] for each in rules if label in each], settings, bundle) for label in LABELS
    }


def limits_of(bundle: Bundle) -> tuple[str, ...]:
    """What this bundle can never say, as sentences for the result; labels that it lacks are said one by one."""
    return () if bundle.has_maps else (CANNOT_LOCATE,)


def _policy(label: str, rules: list[FindingRule], settings: Settings, bundle: Bundle) -> FindingPolicy:
    threshold = bundle.thresholds.get(label)
    if label == NO_FINDING:
        return FindingPolicy(threshold, None, label in bundle.experimental)
    priority = DEFAULT_PRIORITIES[label]
    experimental_allowed = settings.triage.use_experimental
    for rule in rules:
        threshold = rule.threshold if rule.threshold is not None else threshold
        if rule.priority is not None:
            priority = None if rule.priority == "none" else rule.priority
        if rule.use_experimental is not None:
            experimental_allowed = rule.use_experimental
    return FindingPolicy(threshold, priority, label in bundle.experimental, experimental_allowed)


def _selects(override: TriageOverride, identity: StudyIdentity, calling_ae_title: str) -> bool:
    wanted = (
        (override.station, identity.station),
        (override.calling_ae, calling_ae_title),
        (override.institution, identity.institution),
    )
    return all(not selector or selector.strip().lower() == value.strip().lower() for selector, value in wanted)
