"""Several readers: kappa against other implementations, planted agreement found, odd cells refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.data.film import DataError, Film
from firstread.models.evaluation.agreement import cohen, consensus, fleiss
from firstread.models.evaluation.as_json import without_nan
from firstread.models.evaluation.readers import as_json, compare_readers, find_readers, judged_by_consensus
from firstread.models.findings import LABELS, NO_FINDING
from tests.models.evaluation_films import film_of, scores_of
from tests.models.tiny import make_tiny_bundle

NAN = float("nan")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def test_cohen_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(200) < 0.3
    second = first ^ (rng.random(200) < 0.15)
    found = cohen(first, second, [str(n // 2) for n in range(200)])
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low < found.value < found.high and found.agreed == pytest.approx((first == second).mean())


def test_fleiss_is_what_his_formula_gives_by_hand() -> None:
    # Three readers, four films called by 3, 2, 1 and 0 of them: agreement per film 1, 1/3, 1/3, 1; half are calls.
    readings = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], float)
    found = fleiss(readings, list("abcd"))
    assert found.agreed == pytest.approx(2 / 3) and found.value == pytest.approx((2 / 3 - 0.5) / 0.5)


def test_films_that_one_reader_alone_has_read_say_nothing_of_agreement() -> None:
    readings = np.array([[1, 1], [0, 0], [1, NAN], [NAN, 0], [NAN, NAN]])
    found = fleiss(readings, list("abcde"))
    assert found.films == 2 and found.value == pytest.approx(1.0)
    assert fleiss(readings[2:], list("cde")).films == 0


def test_where_nobody_calls_it_there_is_no_kappa() -> None:
    nothing = cohen(np.zeros(20, bool), np.zeros(20, bool), [str(n) for n in range(20)])
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and nothing.agreed == 1.0


def test_the_consensus_is_the_majority_and_silent_when_split() -> None:
    readings = np.array([[1, 1, 0], [0, 0, 1], [1, 0, NAN], [NAN, NAN, 1], [NAN, NAN, NAN]])
    assert np.array_equal(consensus(readings), [1, 0, NAN, 1, NAN], equal_nan=True)


def read_by(labels: dict[str, str], number: int = 0) -> Film:
    return film_of(number, columns=labels)


def test_readers_are_found_by_their_columns_or_named() -> None:
    films = [read_by({"Reader 1": "Mass|Nodule", "reader_B": "no finding", "readership": "x", "Dr. Li": ""})]
    found = find_readers(films)
    assert found is not None and found.readers == ("Reader 1", "reader_B")
    assert found.called[0, 0, LABELS.index("Mass")] == 1 and found.called[0, 0, LABELS.index(NO_FINDING)] == 0
    assert found.called[0, 1, LABELS.index(NO_FINDING)] == 1
    named = find_readers(films, ("Reader 1", "Dr. Li"))
    assert named is not None and np.isnan(named.called[0, 1]).all()  # an empty cell: not read
    assert find_readers([read_by({"site": "a"})]) is None and find_readers([read_by({"reader_1": "Mass"})]) is None


@pytest.mark.parametrize(
    ("columns", "named", "sentence"),
    [
        ({"reader_1": "Mass", "reader_2": "Scoliosis"}, (), r"film_0000\.png, row 2, column 'reader_2': 'Scoliosis'"),
        ({"reader_1": "Mass|No Finding", "reader_2": ""}, (), "No Finding stands beside a finding"),
        ({"reader_1": "Mass"}, ("reader_1", "reader_9"), "no column 'reader_9'"),
        ({"reader_1": "Mass"}, ("reader_1",), "the only reader"),
    ],
)
def test_cells_and_columns_that_cannot_be_meant_are_named(
    columns: dict[str, str], named: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        find_readers([read_by(columns)], named)


def panel(count: int = 300, readers: tuple[float, ...] = (0.05, 0.05, 0.3)) -> tuple[list[Film], np.ndarray]:
    """Films with a hidden truth, each reader wrong by a share of their own."""
    rng = np.random.default_rng(4)
    truth = rng.random(count) < 0.4
    films = []
    for n in range(count):
        said = [truth[n] ^ (rng.random() < error) for error in readers]
        films.append(
            film_of(n, columns={f"reader_{r}": "Pneumonia" if yes else "No Finding" for r, yes in enumerate(said, 1)})
        )
    return films, truth


def test_a_careless_reader_and_a_good_model_are_found_out(bundle: Bundle) -> None:
    films, truth = panel()
    rng = np.random.default_rng(5)
    said = np.clip(0.3 + 0.4 * truth + 0.1 * rng.normal(size=len(films)), 0.01, 0.99)
    readings = find_readers(films)
    assert readings is not None
    found = {one.label: one for one in compare_readers(bundle, scores_of(bundle, films, {"Pneumonia": said}), readings)}
    one = found["Pneumonia"]
    kappa = {(pair.first, pair.second): pair.kappa.value for pair in one.pairs}
    assert kappa["reader_1", "reader_2"] > 0.75 > 0.6 > kappa["reader_1", "reader_3"]
    others = one.reader_against_others
    careful, careless = others["reader_1"].sensitivity, others["reader_3"].sensitivity
    assert careful is not None and careless is not None and careful.value > careless.value + 0.1
    against = one.model_against_consensus
    assert against is not None and against.auroc is not None and against.kappa is not None
    assert against.auroc.value > 0.93 and against.kappa.value > 0.7
    worse = one.model_against_reader["reader_3"].auroc
    assert worse is not None and worse.value < against.auroc.value
    assert one.ties == 0 and one.fleiss is not None and one.fleiss.low < one.fleiss.value < one.fleiss.high
    table = without_nan(as_json(readings, list(found.values())))
    assert table["readers"] == {"reader_1": 300, "reader_2": 300, "reader_3": 300}
    assert table["labels"]["Pneumonia"]["model_against_reader"]["reader_1"]["auroc"]["value"] > 0.8
    assert "Mass" not in table["labels"]  # nobody called it


def test_a_label_that_hardly_anybody_calls_gets_no_figure(bundle: Bundle) -> None:
    films, _ = panel(40)
    films[0] = read_by({"reader_1": "Hernia", "reader_2": "Hernia", "reader_3": "No Finding"})
    readings = find_readers(films)
    assert readings is not None
    found = {one.label: one for one in compare_readers(bundle, scores_of(bundle, films, {}), readings)}
    assert "1 were called" in found["Hernia"].reason and found["Hernia"].fleiss is None


def test_a_label_that_the_bundle_lacks_still_shows_the_readers(tmp_path: Path) -> None:
    few = load_bundle(make_tiny_bundle(tmp_path / "few", labels=("Mass",)))
    films, _ = panel(100)
    readings = find_readers(films)
    assert readings is not None
    found = {one.label: one for one in compare_readers(few, scores_of(few, films, {}), readings)}
    assert found["Pneumonia"].model_against_consensus is None and found["Pneumonia"].pairs


def test_the_majority_can_stand_for_the_labels() -> None:
    films = [
        read_by({"reader_1": "Mass", "reader_2": "Mass", "reader_3": "Nodule"}),
        read_by({"reader_1": "Mass", "reader_2": "No Finding", "reader_3": ""}, 1),
    ]
    readings = find_readers(films)
    assert readings is not None
    first, second = judged_by_consensus(films, readings)
    assert first.target[LABELS.index("Mass")] == 1 and first.target[LABELS.index("Nodule")] == 0
    assert first.known.all()
    assert not second.known[LABELS.index("Mass")] and second.known[LABELS.index("Nodule")]
