"""How long to wait before something is tried again."""

from __future__ import annotations

import random


def backoff_s(attempts: int, first_s: float, max_s: float) -> float:
    """Wait before the next try: doubles from ``first_s`` up to ``max_s``, with a jitter of a quarter."""
    plain = min(max_s, first_s * 2.0 ** min(attempts - 1, 30))
    return min(max_s, plain * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries, guards nothing
