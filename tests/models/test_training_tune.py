"""``models tune``: values are tried, bad trials given up, a stopped study goes on, the best comes out as a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.models.data.film import DataError
from firstread.models.training import tune as tuning
from firstread.models.training.command import Order
from firstread.models.training.lock import alone
from firstread.models.training.recipe import load_recipe
from firstread.models.training.space import Choices, Range, read_space
from firstread.models.training.steps import NotANumber, Setup
from firstread.models.training.tune import Tuned, tune
from tests.models.training_films import NARROW, nih_miniature

RECIPE = """
name = "mine"
seed = 1
store_side = 32
validation = 0.3
stop_on = "loss"
[preprocessing]
input_size = 32
[[stage]]
name = "only"
films = "all"
epochs = 2
rate = 1e-3
batch = 8
"""
SPACE = '"stage.0.rate" = { low = 1e-5, high = 1e-2, log = true }\nstage.only.batch = { choices = [8, 12] }\n'


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    nih_miniature(folder, films=24, side=48)
    (folder / "mine.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "space.toml").write_text(SPACE, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    from firstread.models.training import train

    monkeypatch.setattr(train, "write_curves", lambda *_: None)


def order(nih: Path, out: Path, *changes: str) -> Order:
    return Order(
        recipe=str(nih / "mine.toml"),
        out=out,
        labels=nih / "Data_Entry_2017.csv",
        images=nih / "images",
        changes=(*NARROW, *changes),
        threads=1,
        workers=0,
    )


def quiet(_: str) -> None:
    pass


def tuned(nih: Path, out: Path, trials: int, *changes: str) -> Tuned:
    return tune(order(nih, out, *changes), nih / "space.toml", trials, out / "study.db", quiet)


def trained(losses: list[float]) -> Callable[..., None]:
    """A training that only tells two epochs' figures: one loss per trial."""
    left = iter(losses)

    def train(*_: object, setup: Setup, **__: object) -> None:
        loss = next(left)
        if loss != loss:
            raise NotANumber("stage only, epoch 1, step 1: the loss is nan")
        assert setup.on_epoch is not None
        for _epoch in range(2):
            setup.on_epoch({"watched_loss": loss})

    return train


def study(out: Path) -> optuna.Study:
    return optuna.load_study(study_name="firstread", storage=f"sqlite:///{out / 'study.db'}")


def test_the_best_values_come_out_as_a_recipe_with_a_page_and_pictures(nih: Path, tmp_path: Path) -> None:
    found = tuned(nih, tmp_path, 3)
    assert (found.ended, found.given_up) == (3, 0)
    trials = study(tmp_path).trials
    assert found.figure == max(trial.value or -99 for trial in trials)
    best = load_recipe(str(found.recipe))
    assert best.stages[0].rate == found.values["stage.0.rate"]
    assert best.stages[0].batch == found.values["stage.only.batch"]
    page = found.report.read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"http", page)
    assert (tmp_path / "tuning_history.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.pt")), "three networks per trial are not kept"


def test_a_study_goes_on_instead_of_beginning_again(nih: Path, tmp_path: Path) -> None:
    tuned(nih, tmp_path, 2)
    first = [trial.params for trial in study(tmp_path).trials]
    tuned(nih, tmp_path, 3)
    again = [trial.params for trial in study(tmp_path).trials]
    assert again[:2] == first
    assert len(again) == 3
    assert again[2] not in first
    tuned(nih, tmp_path, 3)
    assert len(study(tmp_path).trials) == 3


@pytest.mark.parametrize("by", [SystemExit, KeyboardInterrupt])
def test_a_trial_that_was_stopped_comes_first_and_goes_on_from_its_checkpoint(
    nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: type[BaseException]
) -> None:
    figure, seen = tuning._figure, []

    def killed(*arguments: object) -> float:
        seen.append(arguments)
        if len(seen) == 2:
            raise by
        return figure(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "_figure", killed)
    with pytest.raises(by):
        tuned(nih, tmp_path, 1)
    monkeypatch.undo()
    (stopped,) = study(tmp_path).trials
    # Optuna hears of a KeyboardInterrupt, and of a SystemExit as little as of SIGKILL.
    assert stopped.state.name == ("FAIL" if by is KeyboardInterrupt else "RUNNING")
    checkpoints = list(tmp_path.rglob("only.pt"))
    assert len(checkpoints) == 1
    said: list[str] = []
    tune(order(nih, tmp_path), nih / "space.toml", 1, tmp_path / "study.db", said.append)
    again = study(tmp_path).trials[-1]
    assert again.params == stopped.params
    assert again.state.name == "COMPLETE"
    assert len(again.intermediate_values) == 2, "epochs from before the stop are reported again"
    assert not any(sentence.startswith("only 1/2") for sentence in said), "and not trained again"


def test_trials_that_fall_behind_are_given_up(nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "train", trained([1.0] * 4 + [5.0] * 2))
    found = tuned(nih, tmp_path, 6)
    assert (found.ended, found.given_up) == (6, 2)
    assert [trial.state.name for trial in study(tmp_path).trials] == ["COMPLETE"] * 4 + ["PRUNED"] * 2


def test_a_trial_whose_loss_is_no_number_is_given_up_and_the_others_go_on(
    nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "train", trained([float("nan"), 1.0]))
    found = tuned(nih, tmp_path, 2)
    assert (found.ended, found.given_up) == (2, 1)
    assert "the loss was no number" in found.report.read_text(encoding="utf-8")


def test_another_recipe_or_space_needs_another_study(nih: Path, tmp_path: Path) -> None:
    tuned(nih, tmp_path, 1)
    with pytest.raises(DataError, match="is the study of another recipe, space or set of films"):
        tuned(nih, tmp_path, 2, "seed=5")


def test_a_file_that_is_no_study_is_named(nih: Path, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, and long enough that SQLite looks at it" * 20)
    with pytest.raises(DataError, match=r"study\.db is no study of Optuna"):
        tuned(nih, tmp_path, 1)


def test_two_tunings_of_one_study_do_not_run_at_once(nih: Path, tmp_path: Path) -> None:
    held = alone(tmp_path / ".study.db.lock", "", "")
    with held, pytest.raises(DataError, match="in use by another tuning: wait for it"):
        tuned(nih, tmp_path, 1)


def test_a_space_says_ranges_and_choices(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(SPACE + "[augmentation]\nnoise = { low = 0.0, high = 0.1, step = 0.02 }\n")
    assert read_space(path) == {
        "stage.0.rate": Range(1e-5, 1e-2, log=True),
        "stage.only.batch": Choices((8, 12)),
        "augmentation.noise": Range(0.0, 0.1, step=0.02),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no value to try"),
        ("seed = 3", "seed: 3 is neither"),
        ("seed = { low = 3, high = 1 }", "low must be the smaller one"),
        ("seed = { low = 0, high = 1, log = true }", "begins above 0"),
        ("seed = { choices = [] }", "choices must be a list"),
        ("seed = { low = 'a', high = 'b' }", "must be numbers"),
        ("seed = ", "not a space of values"),
    ],
)
def test_a_space_that_cannot_be_meant_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_space(path)


def test_a_key_that_no_recipe_has_is_found_before_films_are_read(nih: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text('"stage.0.rat" = { low = 1e-5, high = 1e-2 }')
    with pytest.raises(DataError, match=r"there is no key stage\.0\.rat"):
        tune(order(nih, tmp_path), tmp_path / "space.toml", 1, tmp_path / "study.db", quiet)


def test_the_command_prints_the_best_recipe(nih: Path, tmp_path: Path) -> None:
    said = ["models", "tune", str(nih / "mine.toml"), "--space", str(nih / "space.toml"), "--trials", "1"]
    said += ["--study", str(tmp_path / "study.db"), "--out", str(tmp_path), "--threads", "1"]
    said += ["--labels", str(nih / "Data_Entry_2017.csv"), "--images", str(nih / "images")]
    for change in NARROW:
        said += ["--set", change]
    found = CliRunner().invoke(app, said)
    assert found.exit_code == 0, found.output
    assert "# stage.0.rate = " in found.stdout
    assert load_recipe(str(tmp_path / "best.toml")).name == "mine"
