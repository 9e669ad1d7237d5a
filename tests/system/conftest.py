"""What system tests share: a small bundle, agents that end with their test, peers that end with theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import make_tiny_bundle
from tests.system.agent import Agent, MakeAgent
from tests.system.pacs import StoreScp, storescp
from tests.system.ris import Ris, ris


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that loads in a moment and answers nothing sensible."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def make_agent(tmp_path: Path, tiny_bundle: Path) -> Iterator[MakeAgent]:
    """Makes agents (not started) that end with the test."""
    made: list[Agent] = []

    def make(name: str = "agent", **sections: Any) -> Agent:
        sections.setdefault("bundle", tiny_bundle)
        made.append(Agent(tmp_path / name, **sections))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StoreScp]:
    """DCMTK's storescp."""
    with storescp(tmp_path / "pacs") as peer:
        yield peer


@pytest.fixture
def his() -> Iterator[Ris]:
    """A RIS that takes everything."""
    with ris() as peer:
        yield peer
