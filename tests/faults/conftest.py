"""What fault tests share: a small bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that loads in a moment and answers nothing sensible."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
