"""QIDO-RS as a user agent: whether a service answers to a search (PS3.18 10.6)."""

from __future__ import annotations

from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.client import DicomwebClient, ServiceFailed

_LARGEST_ANSWER = 4 << 20


def probe(client: DicomwebClient) -> tuple[bool, str]:
    """Whether it answers to a search for one study, and what it says."""
    try:
        answer = client.ask(
            "GET", "studies", headers={"Accept": media.JSON}, params={"limit": "1"}, limit_bytes=_LARGEST_ANSWER
        )
    except ServiceFailed as error:
        return False, str(error)
    if answer.status in (200, 204):
        return True, f"answers at {client.service.url}"
    if answer.status in (401, 403):
        return False, f"{answer.sentence()}: it does not let us in; look at the token or the client's rights"
    return False, f"{answer.sentence()}: nothing answers to searches there; url is the base, without /studies"
