"""ONNX files from elsewhere: the same numbers as the file itself gives, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn
from torchvision import transforms

from firstread.models.bundle import verify_bundle
from firstread.models.data.film import DataError
from firstread.models.engine import open_engine
from firstread.models.importing.importer import Request, import_weights
from firstread.models.importing.origins import Wanted
from firstread.models.preprocess import prepare
from tests.models import importing_nets as nets

SIDE = 64
LABELS = "Atelectasis,Fracture,Pleural Effusion,Mass"
PLAIN = Wanted(mean=(0.5,), std=(0.25,))


def graph_file(
    path: Path, *, end: str = "", channels: int = 3, side: int | str = SIDE, batch: int | str = "n", outputs: int = 4
) -> Path:
    """A small convolutional network written node by node, its answers around one half."""
    rng = np.random.default_rng(5)
    kernel = rng.normal(size=(6, channels, 5, 5)).astype(np.float32) / 4
    matrix = rng.normal(size=(6, outputs)).astype(np.float32) * 0.6
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["c"], pads=[2, 2, 2, 2], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["scores" if end else "answer"]),
    ]
    if end == "opaque":  # a sigmoid that is not called one
        nodes += [
            helper.make_node("Neg", ["scores"], ["n1"]),
            helper.make_node("Exp", ["n1"], ["n2"]),
            helper.make_node("Add", ["n2", "one"], ["n3"]),
            helper.make_node("Reciprocal", ["n3"], ["answer"]),
        ]
    elif end:
        nodes.append(helper.make_node(end, ["scores"], ["answer"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, channels, side, side])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, outputs])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def by_itself(path: Path, normalised: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: normalised.astype(np.float32)})[0]


def pixels(films: list[np.ndarray]) -> np.ndarray:
    """Films as torchvision's transforms prepare them for a network of 64 px."""
    prepared = transforms.Compose(
        [
            transforms.Resize(73),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    return torch.stack([prepared(Image.fromarray(film).convert("RGB")) for film in films]).numpy()


@pytest.mark.parametrize("end", ["", "Sigmoid", "Softmax"])
def test_a_graph_answers_in_the_bundle_as_it_does_alone(end: str, tmp_path: Path) -> None:
    path = graph_file(tmp_path / "small.onnx", end=end)
    done = import_weights(Request(file=path, labels=LABELS, out=tmp_path / "b", wanted=PLAIN, threads=1))
    original = by_itself(path, pixels(nets.films()))
    if not end:
        original = 1 / (1 + np.exp(-original))
    engine = open_engine(done.bundle, "cpu", threads=1)
    assert np.abs(nets.served(engine, nets.films()) - original[:, [0, 2, 3]]).max() <= 1e-5
    assert np.abs(original - original[:, ::-1]).max() > 0.05
    assert done.bundle.labels == ("Atelectasis", "Effusion", "Mass")
    assert done.dropped == ("Fracture",)
    assert done.parity.worst_difference <= 1e-5
    assert verify_bundle(done.bundle.folder) == []


def test_probabilities_that_are_not_called_so_are_taken_at_the_users_word(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "small.onnx", end="opaque")
    done = import_weights(
        Request(file=path, labels=LABELS, out=tmp_path / "b", wanted=PLAIN, graph_gives="probabilities", threads=1)
    )
    original = by_itself(path, pixels(nets.films()))[:, [0, 2, 3]]
    found = nets.served(open_engine(done.bundle, "cpu", threads=1), nets.films())
    assert np.abs(found - original).max() <= 1e-5


def test_a_network_exported_from_torch_answers_as_in_torch(tmp_path: Path) -> None:
    """Size and channels come from the graph; greys stand as they are."""
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    path = tmp_path / "exported.onnx"
    torch.onnx.export(network, (torch.zeros(1, 1, SIDE, SIDE),), str(path), external_data=False)
    done = import_weights(
        Request(
            file=path,
            arch="onnx",
            labels="Mass,Nodule,Edema",
            out=tmp_path / "b",
            wanted=Wanted(mean=(0,), std=(1,)),
            graph_gives="logits",
        )
    )
    assert done.bundle.input_size == SIDE
    squares = np.stack(
        [prepare(f.astype(np.float32) / np.float32(255), done.bundle.preprocessing) for f in nets.films()]
    )
    with torch.inference_mode():
        expected = network(torch.from_numpy(squares)[:, None]).sigmoid().numpy()
    found = open_engine(done.bundle, "cpu", threads=1).run(squares).probabilities
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("made", "request_", "said"),
    [
        ({}, {"wanted": Wanted()}, "nobody can tell from a graph .* --mean and --std"),
        ({}, {"wanted": Wanted(mean=(123.7,), std=(58.4,))}, "scale from 0 to 1"),
        ({}, {"wanted": Wanted(mean=(0.5,))}, "belong together"),
        ({}, {"wanted": Wanted(mean=(0.5, 0.5), std=(1, 1))}, "give 1 or 3"),
        ({}, {"wanted": Wanted(mean=(0.5,), std=(0,))}, "above 0"),
        ({}, {"labels": "Mass,Nodule"}, "has 4 outputs, --labels names 2"),
        ({}, {"labels": ""}, "need names: give --labels"),
        ({}, {"wanted": Wanted(input_size=128, mean=(0,), std=(1,))}, "the graph takes 64"),
        ({"side": "s"}, {}, "squares of any size: give the one"),
        ({"channels": 2}, {}, "has 2 channels"),
        ({"batch": 7}, {}, "7 films at a time|takes 7"),
        ({"end": "Sigmoid"}, {"output": "softmax"}, "ends in a sigmoid of its own"),
        ({"end": "opaque"}, {}, "--graph-gives probabilities"),
        ({"end": "Sigmoid"}, {"graph_gives": "logits"}, "gives probabilities; leave"),
        ({}, {"graph_gives": "percent"}, "percent is unknown"),
        ({}, {"graph_output": "other"}, "has no output 'other'"),
        ({}, {"precision": "float16"}, "kept as it is"),
    ],
)
def test_a_graph_that_cannot_be_meant_so_is_refused_and_nothing_is_left(
    made: dict[str, object], request_: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = graph_file(tmp_path / "small.onnx", **made)  # type: ignore[arg-type]
    given = {"labels": LABELS, "wanted": PLAIN, **request_}
    with pytest.raises(Exception, match=said) as error:
        import_weights(Request(file=path, out=tmp_path / "out" / "b", **given))  # type: ignore[arg-type]
    assert type(error.value).__name__ in ("DataError", "BundleError")
    assert not (tmp_path / "out" / "b").exists()
    assert not list((tmp_path / "out").glob("*") if (tmp_path / "out").exists() else [])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no ONNX file|no valid"), (b"not a graph" * 9, "no ONNX file|no valid"), (None, "another file")],
)
def test_what_is_no_self_contained_onnx_file_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = graph_file(tmp_path / "small.onnx")
    if content is None:
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        import_weights(Request(file=path, labels=LABELS, wanted=PLAIN, out=tmp_path / "b"))


def test_weights_are_no_graph_and_a_graph_is_no_weights(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "small.onnx")
    with pytest.raises(DataError, match="use --arch onnx"):
        import_weights(Request(file=path, arch="resnet50", labels=LABELS, out=tmp_path / "b"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"w\.pt: .*ONNX"):
        import_weights(Request(file=tmp_path / "w.pt", arch="onnx", labels=LABELS, out=tmp_path / "b"))
