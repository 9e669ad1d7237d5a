"""A network that comes as an ONNX file: its own answers, its maps where it has them, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from firstread.models.bundle import BundleError, Calibration, load_bundle
from firstread.models.bundle_writer import draft_of, write_bundle
from firstread.models.canary import check
from firstread.models.engine import EngineError, open_engine
from tests.models import onnx_nets as nets

COLUMNS = [3, 1]


@pytest.fixture
def squares() -> np.ndarray:
    return np.random.default_rng(1).random((3, nets.SIDE, nets.SIDE), dtype=np.float32)


def theirs(network: nn.Module, squares: np.ndarray, channels: int = 3) -> np.ndarray:
    given = torch.from_numpy((squares - 0.5) / 0.25)[:, None].expand(-1, channels, -1, -1)
    with torch.inference_mode():
        return network(given).numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def refusal(content: bytes, tmp_path: Path, **values: object) -> str:
    with pytest.raises(BundleError) as caught:
        write_bundle(nets.onnx_draft(content, **values), tmp_path / "refused")
    assert list(tmp_path.glob("*refused*")) == [], "nothing is left behind"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_gives_its_own_answers_for_the_columns_named(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled()
    content = nets.exported(network)
    bundle = write_bundle(nets.onnx_draft(content), tmp_path / "foreign")
    assert bundle.identity.weights_sha256 == hashlib.sha256(content).hexdigest()
    engine = open_engine(bundle, "auto", threads=1)
    output = engine.run(squares)
    expected = theirs(network, squares)[:, COLUMNS]
    np.testing.assert_allclose(output.logits, expected, atol=1e-4)
    np.testing.assert_allclose(output.probabilities, sigmoid(expected), atol=1e-5)
    assert check(engine, bundle).ok


def test_a_map_is_had_of_the_features_before_the_average(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled()
    bundle = write_bundle(nets.onnx_draft(nets.exported(network)), tmp_path / "foreign")
    assert bundle.has_maps
    with torch.inference_mode():
        seen = network[0](torch.from_numpy((squares - 0.5) / 0.25)[:, None].expand(-1, 3, -1, -1))
        maps = torch.einsum("nchw,kc->nkhw", seen, network[4].weight[COLUMNS]).clamp(min=0)
        expected = maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-9)
    found = open_engine(bundle, "cpu", threads=1).run(squares).saliency
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("network", "maps"),
    [
        (nets.pooled(), True),
        (nets.pooled(end=nn.Sigmoid()), True),
        (nets.pooled(end=nn.Softmax(1)), True),
        (nets.convolved(), True),
        (nets.flattened(), False),
        (nets.pooled(end=nn.Sequential(nn.ReLU(), nn.Linear(5, 5))), False),
    ],
    ids=["linear", "sigmoid", "softmax", "no linear layer", "flattened", "two layers"],
)
def test_maps_are_there_where_the_graph_allows_them(tmp_path: Path, network: nn.Module, maps: bool) -> None:
    ends = isinstance(network[-1], nn.Sigmoid | nn.Softmax)
    output = "softmax" if isinstance(network[-1], nn.Softmax) else "sigmoid"
    draft = nets.onnx_draft(nets.exported(network), gives="probabilities" if ends else "logits", output=output)
    bundle = write_bundle(draft, tmp_path / "foreign")
    assert bundle.has_maps is maps
    saliency = open_engine(bundle, "cpu", threads=1).run(np.zeros((1, 32, 32), np.float32)).saliency
    assert (saliency.shape if saliency is not None else None) == ((1, 2, 8, 8) if maps else None)


def test_the_newer_exporters_files_are_read_as_well(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled()
    bundle = write_bundle(nets.onnx_draft(nets.exported_anew(network, tmp_path / "new.onnx")), tmp_path / "foreign")
    output = open_engine(bundle, "cpu", threads=1).run(squares)
    np.testing.assert_allclose(output.logits, theirs(network, squares)[:, COLUMNS], atol=1e-4)
    assert bundle.has_maps


def test_probabilities_are_taken_as_they_are(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled(end=nn.Sigmoid())
    bundle = write_bundle(nets.onnx_draft(nets.exported(network), gives="probabilities"), tmp_path / "foreign")
    output = open_engine(bundle, "cpu", threads=1).run(squares)
    np.testing.assert_allclose(output.probabilities, theirs(network, squares)[:, COLUMNS], atol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_a_softmax_is_taken_over_all_columns(tmp_path: Path, squares: np.ndarray, inside: bool) -> None:
    network = nets.pooled(end=nn.Softmax(1) if inside else None)
    draft = nets.onnx_draft(nets.exported(network), output="softmax", gives="probabilities" if inside else "logits")
    output = open_engine(write_bundle(draft, tmp_path / "foreign"), "cpu", threads=1).run(squares)
    expected = theirs(network, squares)
    if not inside:
        expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(output.probabilities, expected[:, COLUMNS], atol=1e-5)


def test_a_calibration_moves_what_it_gives(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled(end=nn.Sigmoid())
    network[4].weight.data.mul_(0.05)  # a sigmoid of float32 that is 1 has no logit
    draft = replace(
        nets.onnx_draft(nets.exported(network), gives="probabilities"),
        calibration=Calibration("platt", (0.5, 2.0), (0.3, -0.2)),
    )
    output = open_engine(write_bundle(draft, tmp_path / "foreign"), "cpu", threads=1).run(squares)
    raw = theirs(network, squares)[:, COLUMNS]
    logits = np.log(raw / (1 - raw))
    np.testing.assert_allclose(output.probabilities, sigmoid(logits * [0.5, 2.0] + [0.3, -0.2]), atol=1e-5)


def test_one_channel_and_one_film_at_a_time_will_do(tmp_path: Path, squares: np.ndarray) -> None:
    network = nets.pooled(channels=1)
    content = nets.exported(network, channels=1, free_batch=False)
    draft = nets.onnx_draft(content, input_channels=1, mean=(0.5,), std=(0.25,))
    output = open_engine(write_bundle(draft, tmp_path / "foreign"), "cpu", threads=1).run(squares)
    np.testing.assert_allclose(output.logits, theirs(network, squares, 1)[:, COLUMNS], atol=1e-4)


def test_a_gpu_is_not_promised(tmp_path: Path) -> None:
    bundle = write_bundle(nets.onnx_draft(nets.exported(nets.pooled())), tmp_path / "foreign")
    with pytest.raises(EngineError, match="set device to cpu or auto"):
        open_engine(bundle, "cuda", threads=1)


def test_a_new_version_keeps_the_file_byte_by_byte(tmp_path: Path) -> None:
    bundle = write_bundle(nets.onnx_draft(nets.exported(nets.pooled())), tmp_path / "foreign")
    again = write_bundle(replace(draft_of(bundle), version="2"), tmp_path / "again")
    assert again.weights_sha256 == bundle.weights_sha256
    assert again.architecture == bundle.architecture
    assert [one.expected for one in again.canaries] == [one.expected for one in bundle.canaries]


def changed(content: bytes, change: object) -> bytes:
    model = onnx.load_model_from_string(content)
    change(model)  # type: ignore[operator]
    return model.SerializeToString()


def test_operators_from_elsewhere_are_refused(tmp_path: Path) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "com.microsoft"
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    said = refusal(changed(nets.exported(nets.pooled()), foreign), tmp_path)
    assert "com.microsoft.Conv, which is not in the ONNX standard" in said


def test_an_operator_hidden_in_a_branch_is_refused_too(tmp_path: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        inner = helper.make_graph(
            [helper.make_node("Evil", [], ["gone"], domain="evil")],
            "branch",
            [],
            [helper.make_tensor_value_info("gone", TensorProto.FLOAT, None)],
        )
        model.opset_import.append(helper.make_opsetid("evil", 1))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner))

    assert "evil.Evil" in refusal(changed(nets.exported(nets.pooled()), hide), tmp_path)


def test_a_loop_is_refused(tmp_path: Path) -> None:
    def circle(model: onnx.ModelProto) -> None:
        inner = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"])],
            "body",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("Loop", ["", "yes"], [], body=inner))

    assert "it uses Loop, which may never end" in refusal(changed(nets.exported(nets.pooled()), circle), tmp_path)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    content = nets.exported_anew(nets.pooled(), tmp_path / "new.onnx", inside=False)
    assert "lies in another file: save the network with its weights inside" in refusal(content, tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
        weight.flat[0] = np.nan
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))

    assert "holds values that are no numbers" in refusal(changed(nets.exported(nets.pooled()), spoil), tmp_path)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\x80\x04cos\nsystem\n(S'true'\ntR.", nets.exported(nets.pooled())[:-90]):
        assert "no valid ONNX file" in (said := refusal(content, tmp_path)) or "no ONNX file" in said


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firstread.models import onnx_file

    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 1000)
    assert "1000 are allowed: use a smaller network" in refusal(nets.exported(nets.pooled()), tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"input": "image"}, "its input must be 'image' alone, it has film"),
        ({"output_name": "scores"}, "it has no output 'scores', but out"),
        ({"columns": (3, 5)}, "has 5 columns, a label is to be in column 5"),
        ({"input_channels": 1, "mean": (0.5,), "std": (1.0,)}, "is ?x3x32x32, the bundle gives N x 1 x 32 x 32"),
    ],
)
def test_a_description_that_does_not_fit_the_graph_is_refused(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    assert said in refusal(nets.exported(nets.pooled()), tmp_path, **values)


def test_a_graph_that_ends_in_a_sigmoid_does_not_give_logits(tmp_path: Path) -> None:
    assert "it ends in Sigmoid" in refusal(nets.exported(nets.pooled(end=nn.Sigmoid())), tmp_path)


def test_numbers_that_are_no_probabilities_are_found_out(tmp_path: Path) -> None:
    said = refusal(nets.exported(nets.pooled()), tmp_path, gives="probabilities")
    assert "where probabilities were promised" in said


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    def second(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["n"]))

    said = refusal(changed(nets.exported(nets.pooled()), second), tmp_path)
    assert "its input must be 'film' alone, it has film, age" in said


def test_half_precision_is_refused_with_what_to_do(tmp_path: Path) -> None:
    content = nets.exported(nets.pooled())

    def halve(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    assert "takes FLOAT16: export the network in float32" in refusal(changed(content, halve), tmp_path)


def test_one_changed_byte_in_the_file_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(nets.onnx_draft(nets.exported(nets.pooled())), tmp_path / "foreign").folder
    content = bytearray((folder / "network.onnx").read_bytes())
    content[-20] ^= 1
    (folder / "network.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"network\.onnx is not the file that the bundle was made with"):
        load_bundle(folder)
