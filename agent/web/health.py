"""/health and /ready: is every role alive, and are films accepted? JSON, without patient data."""

from __future__ import annotations

from typing import Any

from firstread.agent.store.overview import Overview, RoleLife

EXPECTED = ("receive", "analyse", "studies", "deliver", "web")


def health(facts: Overview, *, in_full: bool) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). 503 while a role is dead or missing; each problem says what to do.

    An alarm alone is no 503: a restart, which is what a 503 brings about, mends no destination and fills no disk.
    ``in_full``: the asker may see alarms' own words, which can name a patient.
    """
    problems = [
        {"what": f"role {one.name}", "words": _dead(one), "remedy": "look at its log; the supervisor starts it again"}
        for one in facts.roles
        if not one.alive
    ]
    started = {one.name for one in facts.roles}
    problems += [
        {
            "what": f"role {name}",
            "words": "does not run",
            "remedy": f"the supervisor starts it again, see the log; by itself: firstread run --role {name}",
        }
        for name in EXPECTED
        if name not in started
    ]
    alarms = []
    for alarm in facts.alarms:
        shown: dict[str, Any] = {
            "kind": alarm.key.split("/")[0],
            "severity": alarm.severity,
            "since": alarm.since.isoformat(),
        }
        if in_full:
            shown |= {"key": alarm.key, "text": alarm.text, "remedy": alarm.remedy}
        alarms.append(shown)
    body = {
        "status": "bad" if problems else "alarm" if alarms else "good",
        "roles": {
            one.name: {"alive": one.alive, "beat_age_s": round(one.beat_age_s, 1), "since": one.started_at.isoformat()}
            for one in facts.roles
        },
        "problems": problems,
        "alarms": alarms,
        "queue": {"images": dict(facts.images), "studies": dict(facts.studies)},
    }
    return (503 if problems else 200), body


def ready(receiver: RoleLife | None) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body): 200 as soon as associations are accepted, whatever else is still starting."""
    if receiver is None:
        return 503, {"ready": False, "words": "the receiver was not started"}
    if not receiver.alive:
        return 503, {"ready": False, "words": _dead(receiver)}
    if not receiver.status.get("listening"):
        return 503, {"ready": False, "words": "the receiver does not listen yet"}
    return 200, {"ready": True, "words": "associations are accepted"}


def _dead(one: RoleLife) -> str:
    return f"gave no sign of life for {one.beat_age_s:.0f} s"
