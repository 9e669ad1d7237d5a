"""Every kind of network that a bundle may hold gives the same answers in every engine, and says what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstread.models.architecture import Architecture, parameter_shapes
from firstread.models.bundle import Bundle, Calibration, load_bundle
from firstread.models.canary import check
from firstread.models.engine import Coded, Engine, OutOfMemory, Raw, Squares, open_engine
from firstread.models.engine_onnx import OnnxEngine
from firstread.models.engine_torch import EagerEngine, ScriptEngine
from firstread.models.metadata import encode
from tests.models.tiny import NARROW, make_tiny_bundle

LABELS = ("Effusion", "Mass", "Nodule", "No Finding")
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"head": "dense", "hidden": (24, 16)},
    "softmax": {"output": "softmax"},
    "dense softmax": {"head": "dense", "hidden": (24,), "output": "softmax", "dilate_last": False},
    "one channel": {"input_channels": 1, "mean": (0.5,), "std": (1 / 2048,)},
    "metadata": {"metadata": ("age", "sex", "view"), "pooling": "log_mean_exp"},
    "sex alone, dense, one channel": {
        "metadata": ("sex",),
        "head": "dense",
        "hidden": (8, 8),
        "input_channels": 1,
        "mean": (0.5,),
        "std": (0.25,),
    },
}
KNOWN = [
    {"age": 70.0, "sex": "F", "view": "AP"},
    {"age": None, "sex": "", "view": "LL"},
    None,
    {"age": "31", "sex": "m", "view": "pa"},
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    made: dict[str, Bundle] = {}
    folder = tmp_path_factory.mktemp("kinds")

    def bundle(kind: str) -> Bundle:
        if kind not in made:
            path = make_tiny_bundle(folder / f"{len(made)}", labels=LABELS, version=kind, **KINDS[kind])
            made[kind] = load_bundle(path)
        return made[kind]

    return bundle


@pytest.fixture
def squares() -> Squares:
    return np.random.default_rng(3).random((4, 64, 64), dtype=np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_agrees_with_eager_torch(bundles: Callable[[str], Bundle], squares: Squares, kind: str) -> None:
    bundle = bundles(kind)
    expected = EagerEngine(bundle).run(squares, KNOWN)
    for engine in (OnnxEngine(bundle, None, 1), ScriptEngine(bundle, 1)):
        found = engine.run(squares, KNOWN)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4, err_msg=engine.name)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3, err_msg=engine.name)
        if bundle.has_maps:
            np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-3, err_msg=engine.name)
        else:
            assert found.saliency is None
        assert check(engine, bundle).ok


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_has_the_tensors_that_its_description_names(kind: str) -> None:
    from firstread.models.network import ChestNetwork, state_of

    values = {**NARROW, **KINDS[kind]}
    size = {"input_size": 64} if values.get("head") == "dense" else {}
    architecture = Architecture(outputs=4, **values, **size)
    found = {name: tuple(tensor.shape) for name, tensor in state_of(ChestNetwork(architecture)).items()}
    assert found == parameter_shapes(architecture)


def test_the_seeds_head_has_the_size_that_the_seed_had() -> None:
    """Flatten, Dense 512, Dense 512, Dense 15 on ResNet50's 7 x 7 x 2048 features at 224 pixels."""
    shapes = parameter_shapes(Architecture(outputs=15, head="dense", input_size=224, dilate_last=False))
    assert shapes["fc.0.weight"] == (512, 7 * 7 * 2048)
    assert shapes["fc.2.weight"] == (512, 512)
    assert shapes["fc.4.weight"] == (15, 512)


def test_a_softmax_shares_one_sum(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    output = EagerEngine(bundles("softmax")).run(squares)
    np.testing.assert_allclose(output.probabilities.sum(axis=1), 1, atol=1e-6)
    assert output.logits is not None
    np.testing.assert_allclose(np.exp(output.logits), output.probabilities, atol=1e-6)


def test_metadata_move_the_answer_and_leave_the_map_alone(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    engine = OnnxEngine(bundles("metadata"), None, 1)
    old = engine.run(squares, [{"age": 80.0, "sex": "M", "view": "AP"}] * 4)
    young = engine.run(squares, [{"age": 20.0, "sex": "F", "view": "PA"}] * 4)
    assert np.abs(old.probabilities - young.probabilities).max() > 1e-3
    np.testing.assert_array_equal(old.saliency, young.saliency)


def test_no_metadata_at_all_are_missing_ones(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    engine = OnnxEngine(bundles("metadata"), None, 1)
    nothing = engine.run(squares)
    for rows in ([None] * 4, [{}] * 4, [{"age": float("nan"), "sex": "O", "view": "?"}] * 4, [{"age": "034Y"}] * 4):
        np.testing.assert_array_equal(engine.run(squares, rows).probabilities, nothing.probabilities)
    np.testing.assert_allclose(EagerEngine(bundles("metadata")).run(squares).logits, nothing.logits, atol=1e-4)


def test_a_bundle_without_metadata_does_not_look_at_them(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    engine = OnnxEngine(bundles("softmax"), None, 1)
    np.testing.assert_array_equal(engine.run(squares, KNOWN).probabilities, engine.run(squares).probabilities)


def test_other_rows_of_metadata_than_films_are_refused(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    with pytest.raises(ValueError, match="4 films came with 2 rows of metadata"):
        OnnxEngine(bundles("metadata"), None, 1).run(squares, KNOWN[:2])


def test_metadata_are_halved_with_their_batch(bundles: Callable[[str], Bundle], squares: Squares) -> None:
    class Narrow(EagerEngine):
        """Room for one film."""

        def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
            if len(batch) > 1:
                raise OutOfMemory("one at a time")
            return super().raw(batch, coded)

    whole: Engine = EagerEngine(bundles("sex alone, dense, one channel"))
    expected = whole.run(squares, KNOWN)
    found = Narrow(bundles("sex alone, dense, one channel")).run(squares, KNOWN)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert found.saliency is None


def test_metadata_are_standardised_and_flagged_when_missing() -> None:
    coded = encode(
        [{"age": 65, "sex": "F", "view": "AP"}, {"age": -3, "sex": None}, {"age": 121.0}], ("age", "sex", "view")
    )
    np.testing.assert_allclose(coded, [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]])


def test_the_canaries_tell_some_metadata_and_hide_others(bundles: Callable[[str], Bundle]) -> None:
    told = [canary.metadata for canary in bundles("metadata").canaries]
    assert {"age", "sex", "view"} <= set(told[0])
    assert told[0] != told[1]
    assert not told[2]


def test_the_engine_that_the_service_opens_runs_each_kind(
    bundles: Callable[[str], Bundle], squares: Squares, tmp_path: Path
) -> None:
    for kind in ("dense", "metadata"):
        engine = open_engine(bundles(kind), "cpu", threads=1)
        assert engine.run(squares, KNOWN).probabilities.shape == (4, 4)
    for kind in ("metadata", "one channel"):
        OnnxEngine(bundles(kind), tmp_path, 1)
    assert len(list(tmp_path.glob("*.onnx"))) == 2


def test_identity_calibration_leaves_the_sigmoid_alone(tmp_path: Path, squares: Squares) -> None:
    from dataclasses import replace

    from firstread.models.bundle_writer import write_bundle
    from tests.models.tiny import tiny_draft

    draft = replace(tiny_draft(labels=LABELS), calibration=Calibration.identity(4))
    output = EagerEngine(write_bundle(draft, tmp_path / "plain")).run(squares)
    assert output.logits is not None
    np.testing.assert_allclose(output.probabilities, 1 / (1 + np.exp(-output.logits)), atol=1e-6)
