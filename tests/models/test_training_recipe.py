"""Recipes: every one that is shipped can be read, what they promise stands in them, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.training.recipe import RECIPES, load_recipe
from tests.models.training_films import NARROW, recipe, stage

SHIPPED = ("default", "metadata", "scratch", "seed")


def test_four_recipes_are_shipped() -> None:
    assert tuple(sorted(path.stem for path in RECIPES.glob("*.toml"))) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_can_be_read_and_trains_its_last_stage_on_real_films_at_the_bundles_size(
    name: str,
) -> None:
    made = load_recipe(name)
    assert made.name == name
    assert made.stages[-1].films == "all"
    assert made.stages[-1].input_size in (None, made.preprocessing.input_size)
    assert made.text == (RECIPES / f"{name}.toml").read_text(encoding="utf-8")


def test_the_seed_is_what_the_project_began_with() -> None:
    made = load_recipe("seed")
    network = made.architecture(len(LABELS))
    assert (made.initial, network.head, network.hidden, network.output) == ("imagenet", "dense", (512, 512), "softmax")
    assert made.once_per_label
    assert made.balance == 1.0, "class weights"
    assert made.validation == 0.2
    assert made.optimiser == "rmsprop"
    assert [(one.trains, one.epochs, one.schedule) for one in made.stages] == [("head", 30, "constant")]
    assert (made.preprocessing.input_size, made.preprocessing.equalise, made.preprocessing.trim) == (224, False, False)
    varied = made.augmentation
    assert (varied.rotate_degrees, varied.shift, varied.shear, varied.zoom) == (10.0, 0.1, 0.1, 0.1)
    assert (varied.flip, varied.noise, varied.blur_px, varied.gamma, varied.erase) == (0.0, 0.0, 0.0, 1.0, 0.0)


def test_metadata_is_the_default_recipe_with_three_more_inputs() -> None:
    plain, told = load_recipe("default"), load_recipe("metadata")
    assert told.metadata == ("age", "sex", "view")
    assert told.stages == plain.stages
    assert told.preprocessing == plain.preprocessing
    assert told.augmentation == plain.augmentation


def test_a_change_goes_to_a_stage_by_number_or_by_name_and_stands_in_the_text() -> None:
    made = load_recipe("default", ["stage.0.epochs=3", "stage.fine.rate=2e-5", "initial=random", *NARROW])
    assert made.stages[0].epochs == 3
    assert made.stages[-1].rate == 2e-5
    assert (made.initial, made.width, made.blocks) == ("random", 4, (1, 1, 1, 1))
    assert "# changed: stage.fine.rate=2e-5" in made.text


def test_a_changed_recipes_text_is_a_recipe_again(tmp_path: Path) -> None:
    made = load_recipe("scratch", ["stage.0.epochs=3", "label_weights.No Finding=4.0"])
    (tmp_path / "mine.toml").write_text(made.text, encoding="utf-8")
    again = load_recipe(str(tmp_path / "mine.toml"))
    assert again.stages == made.stages
    assert again.label_weights == {**load_recipe("scratch").label_weights, "No Finding": 4.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage.0.epoch=3", r"there is no key stage\.0\.epoch \(known: .*epochs"),
        ("stage.9.rate=1", r"there is no such stage: the recipe has 0 \(head\), 1 \(upper\)"),
        ("augmentation.flap=1", r"there is no key augmentation\.flap"),
        ("preprocessing.input_sice=1", r"there is no key preprocessing\.input_sice"),
        ("stage.0.epochs=many", r"stage\.0\.epochs is 'many': input should be a valid integer"),
        ("stage.0.epochs=0", r"stage head: epochs is 0, it must lie between 1 and 100000"),
        ("stage.0.rate=nan", r"stage head: rate is nan"),
        ("augmentation.noise=7", r"noise is 7"),
        ("stop_on=auroc.Fracture", r"stop_on is 'auroc.Fracture': it must be loss, auroc or auroc.<label>"),
        ("label_weights={Fracture=2.0}", r"know the 15 labels, not Fracture"),
        ("loss=softmax", r"belong together"),
        ("validation=0", r"a stage with patience needs films to choose by"),
        ("stage.fine.input_size=384", r"the last stage must train at preprocessing\.input_size"),
        ("stage.0.name=../x", r"becomes a file name"),
        ("normalisation=none", r"normalisation is 'none': input should be 'half', 'imagenet' or 'caffe'"),
        ("width=1000", r"network\.width is 1000"),
        ("seed", r"write KEY=VALUE"),
        ("stage=1", r"\[\[stage\]\] is missing"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(change: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_recipe("default", [change])


def test_a_recipe_that_lacks_a_key_says_which(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\n[preprocessing]\ninput_size = 112\n[[stage]]\nname = "a"\nfilms = "all"\n')
    with pytest.raises(DataError, match=r"mine\.toml: not a recipe: stage\.0\.epochs, stage\.0\.rate is missing"):
        load_recipe(str(path))


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"give a \.toml file or one of default, metadata, scratch, seed"):
        load_recipe("nothing")


def test_a_softmax_refuses_what_it_cannot_learn() -> None:
    with pytest.raises(ValueError, match="leave auxiliary, metadata and phantoms out"):
        recipe(loss="softmax", once_per_label=True, auxiliary=("sex",))


def test_two_stages_of_one_name_would_share_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="the same name"):
        recipe(stage(), stage())
