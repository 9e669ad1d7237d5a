"""A short fuzz at every edge, and what once broke something: it must not break it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from firstread.integration.dicom.part10 import meta_header
from tests.faults.fuzz import edges, mutate
from tests.faults.fuzz.run import run
from tests.integration.dicom_wire import EXPLICIT, Film

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hostile_input_at_every_edge_breaks_nothing(tmp_path: Path) -> None:
    log = run(tmp_path, seconds=240, inputs=1000, seed=11, wanted=None, keep=tmp_path / "kept", batch=100)
    assert log["findings"] == []
    assert all(of_edge["inputs"] > 0 for of_edge in log["by_edge"].values())
    assert log["inputs"] == 1000


def test_an_input_depends_on_the_seed_alone() -> None:
    for edge in (edges.Messages(), edges.Toml(), edges.Acknowledgements()):
        assert [edge.make(Random(4)) for _ in range(3)] == [edge.make(Random(4)) for _ in range(3)]
        assert edge.make(Random(4)) != edge.make(Random(5))


def test_an_edge_that_breaks_is_found() -> None:
    class Fragile(edges.Messages):
        def try_(self, content: bytes) -> None:
            raise edges.Found("it broke")

    from tests.faults.fuzz.run import _tried

    assert _tried(Fragile(), [b"x"]) == [("it broke", b"x")]


def test_what_the_machine_held_up_once_is_counted_and_what_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.faults.fuzz import run as runs

    class Slow(edges.Messages):
        def __init__(self, times: int) -> None:
            self.times = times

        def try_(self, content: bytes) -> None:
            self.times -= 1
            if self.times >= 0:
                raise edges.Late("late")

    monkeypatch.setattr(runs.time, "sleep", lambda _: None)
    once, always = Slow(1), Slow(100)
    assert runs._tried(once, [b"x"]) == [] and once.late == 1
    ((said, _),) = runs._tried(always, [b"x"])
    assert "each of 3 times" in said


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, edges.Edge]]:
    film = Film(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34")
    content = meta_header(film.sop_class_uid, film.sop_instance_uid, EXPLICIT) + film.data_set()
    made = [edges.FilmsRead(), edges.Messages(), edges.Acknowledgements(), edges.Responses([], content), edges.Toml()]
    yield {one.name: one for one in made}
    for one in made:
        one.close()


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_once_broke_something_no_longer_does(path: Path, readers: dict[str, edges.Edge]) -> None:
    readers[path.name.split("--")[0].replace("-", " ")].try_(path.read_bytes())


@pytest.mark.parametrize(
    "bomb",
    [mutate.jpeg_bomb(65_500), mutate.jpeg_2000_bomb(65_500), mutate.jpeg_2000_bomb(12_000), mutate.nested(20_000)],
    ids=["jpeg", "jpeg 2000", "jpeg 2000 of an allowed size", "nesting"],
)
def test_a_bomb_costs_its_film_alone(bomb: bytes, readers: dict[str, edges.Edge]) -> None:
    readers["films read"].try_(bytes(128) + b"DICM" + bomb)
