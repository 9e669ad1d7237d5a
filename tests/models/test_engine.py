"""Every engine gives the answers that eager torch gives, and none that fails does so silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firstread.models import engine_choice
from firstread.models.bundle import Bundle, load_bundle
from firstread.models.engine import (
    Coded,
    DeviceLost,
    Engine,
    EngineError,
    FallbackEngine,
    OutOfMemory,
    Raw,
    Squares,
    open_engine,
)
from firstread.models.engine_onnx import OnnxEngine
from firstread.models.engine_torch import EagerEngine, ScriptEngine
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def squares() -> Squares:
    return np.random.default_rng(3).random((5, 64, 64), dtype=np.float32)


class FakeDevice(Engine):
    """A device with room for ``room`` images that is lost at its ``lost_at``-th call."""

    name = "fake/device"
    device = "fake:0"

    def __init__(self, bundle: Bundle, room: int = 100, lost_at: int = 1_000) -> None:
        super().__init__(bundle)
        self.room, self.lost_at = room, lost_at
        self.sizes: list[int] = []

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        self.sizes.append(len(batch))
        if len(self.sizes) >= self.lost_at:
            raise DeviceLost("fake:0: unspecified launch failure")
        if len(batch) > self.room:
            raise OutOfMemory(f"no room for {len(batch)}")
        mean = batch.mean(axis=(1, 2))[:, None] * np.ones(len(self.bundle.labels), np.float32)
        return mean.astype(np.float32), np.ones((len(batch), len(self.bundle.labels), 4, 4), np.float32)


def test_onnx_runtime_agrees_with_eager_torch(bundle: Bundle, squares: Squares) -> None:
    eager, onnx = EagerEngine(bundle).raw(squares), OnnxEngine(bundle, None, 1).raw(squares)
    np.testing.assert_allclose(onnx[0], eager[0], atol=1e-4)
    np.testing.assert_allclose(onnx[1], eager[1], atol=1e-4)


def test_frozen_torchscript_agrees_with_eager_torch(bundle: Bundle, squares: Squares) -> None:
    eager, script = EagerEngine(bundle).run(squares), ScriptEngine(bundle, 1).run(squares)
    np.testing.assert_allclose(script.probabilities, eager.probabilities, atol=1e-3)
    np.testing.assert_allclose(script.saliency, eager.saliency, atol=1e-3)


@pytest.mark.parametrize(("dilate", "pooling"), [(True, "log_mean_exp"), (False, "mean")])
def test_the_graph_follows_torchvision_at_every_depth(tmp_path: Path, dilate: bool, pooling: str) -> None:
    """Two blocks per stage: strides, dilations and projections all occur."""
    import torch

    from firstread.models.architecture import Architecture
    from firstread.models.network import ChestNetwork, state_of
    from firstread.models.onnx_graph import build_graph

    torch.manual_seed(1)
    architecture = Architecture(
        outputs=3, width=8, blocks=(2, 2, 2, 2), dilate_last=dilate, pooling=pooling, mean=(0.4, 0.5, 0.6)
    )
    network = ChestNetwork(architecture)
    for name, tensor in state_of(network).items():
        if name.endswith(("running_var", "bn3.weight")):
            tensor.data.uniform_(0.5, 1.5)
    network.eval()
    weights = {name: tensor.numpy() for name, tensor in state_of(network).items()}
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(build_graph(architecture, weights, 96).SerializeToString())
    import onnxruntime

    squares = np.random.default_rng(0).random((2, 96, 96), dtype=np.float32)
    logits, activations = onnxruntime.InferenceSession(graph).run(None, {"squares": squares})
    with torch.inference_mode():
        expected = network(torch.from_numpy(squares))
    np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-3)
    np.testing.assert_allclose(activations, expected[1].numpy(), atol=1e-3)
    assert activations.shape[2:] == ((6, 6) if dilate else (3, 3))


def test_an_engine_answers_probabilities_and_maps_between_0_and_1(bundle: Bundle, squares: Squares) -> None:
    output = open_engine(bundle, "cpu", threads=1).run(squares)
    assert output.probabilities.shape == (5, 15)
    assert output.saliency.shape == (5, 15, 4, 4)
    for part in (output.probabilities, output.saliency):
        assert part.dtype == np.float32
        assert part.min() >= 0
        assert part.max() <= 1


def test_one_image_gets_the_same_answer_alone_and_in_a_batch(bundle: Bundle, squares: Squares) -> None:
    engine = open_engine(bundle, "cpu", threads=1)
    together = engine.run(squares).probabilities
    alone = np.concatenate([engine.run(squares[i : i + 1]).probabilities for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_engine_refuses_what_are_not_squares_of_its_size(bundle: Bundle) -> None:
    engine = open_engine(bundle, "cpu", threads=1)
    for shape in ((1, 32, 32), (64, 64), (1, 1, 64, 64)):
        with pytest.raises(ValueError, match="prepare the images first"):
            engine.run(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="empty"):
        engine.run(np.zeros((0, 64, 64), np.float32))


def test_a_full_device_gets_the_batch_in_halves(bundle: Bundle) -> None:
    engine = FakeDevice(bundle, room=3)
    batch = np.random.default_rng(0).random((11, 64, 64), dtype=np.float32)
    output = engine.run(batch)
    assert engine.sizes[0] == 11
    assert max(size for size in engine.sizes if size <= 3) == 3
    np.testing.assert_allclose(output.probabilities, FakeDevice(bundle).run(batch).probabilities, atol=1e-6)


def test_a_device_without_room_for_one_image_says_so(bundle: Bundle) -> None:
    with pytest.raises(OutOfMemory):
        FakeDevice(bundle, room=0).run(np.zeros((2, 64, 64), np.float32))


def test_a_lost_device_is_told_to_a_caller_that_gave_no_fallback(bundle: Bundle) -> None:
    with pytest.raises(DeviceLost):
        FakeDevice(bundle, lost_at=1).run(np.zeros((2, 64, 64), np.float32))


def test_after_a_lost_device_the_same_batch_is_answered_by_the_processor_with_an_alarm(
    bundle: Bundle, squares: Squares
) -> None:
    alarms: list[str] = []
    engine = FallbackEngine(FakeDevice(bundle, lost_at=2), lambda: OnnxEngine(bundle, None, 1), alarms.append)
    engine.run(squares)
    assert (engine.name, engine.device, alarms) == ("fake/device", "fake:0", [])
    answer = engine.run(squares)
    assert (engine.name, engine.device) == ("cpu/onnxruntime", "cpu")
    assert len(alarms) == 1
    assert "fake:0 was lost" in alarms[0]
    np.testing.assert_allclose(answer.probabilities, EagerEngine(bundle).run(squares).probabilities, atol=1e-3)
    engine.run(squares)
    assert len(alarms) == 1


def test_a_device_filled_up_by_somebody_else_is_left_for_the_processor(bundle: Bundle, squares: Squares) -> None:
    alarms: list[str] = []
    engine = FallbackEngine(FakeDevice(bundle, room=0), lambda: OnnxEngine(bundle, None, 1), alarms.append)
    assert engine.run(squares).probabilities.shape == (5, 15)
    assert engine.device == "cpu"
    assert len(alarms) == 1


def test_an_engine_that_answers_wrongly_is_struck_off_with_the_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "cpu_engines", lambda *_: [("fake/device", lambda: FakeDevice(bundle))])
    with pytest.raises(EngineError, match=r"fake/device: .*must not be reported"):
        open_engine(bundle, "cpu")


def test_an_engine_that_does_not_open_leaves_the_next_one_to_try(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Engine:
        raise OSError("library not found")

    engines = [("cpu/onnxruntime", broken), ("cpu/torch", lambda: EagerEngine(bundle))]
    monkeypatch.setattr(engine_choice, "cpu_engines", lambda *_: engines)
    assert open_engine(bundle, "cpu").name == "cpu/torch"


def test_the_fastest_engine_of_this_machine_is_measured_once_and_remembered(bundle: Bundle, tmp_path: Path) -> None:
    found = engine_choice.measurements(bundle, tmp_path, 1)
    assert {row.name for row in found} == {"cpu/onnxruntime", "cpu/torchscript", "cpu/torch"}
    assert all(row.images_per_s > 0 and not row.refused for row in found)
    assert engine_choice.remembered(bundle, tmp_path, 1) == found
    assert engine_choice.remembered(bundle, tmp_path, 2) == ()


def test_what_was_measured_decides(bundle: Bundle, tmp_path: Path) -> None:
    rows = [
        {"name": "cpu/onnxruntime", "images_per_s": 0.0, "refused": "does not answer"},
        {"name": "cpu/torchscript", "images_per_s": 20.0},
        {"name": "cpu/torch", "images_per_s": 8.0},
    ]
    engine_choice._file(bundle, tmp_path, 1).write_text(json.dumps(rows))
    names = [name for name, _ in engine_choice.cpu_engines(bundle, tmp_path, 1)]
    assert names == ["cpu/torchscript", "cpu/torch", "cpu/onnxruntime"]


def test_a_nearly_equal_engine_does_not_displace_the_one_that_needs_no_torch(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"name": "cpu/torchscript", "images_per_s": 20.5}, {"name": "cpu/onnxruntime", "images_per_s": 20.2}]
    engine_choice._file(bundle, tmp_path, 1).write_text(json.dumps(rows))
    assert engine_choice.cpu_engines(bundle, tmp_path, 1)[0][0] == "cpu/onnxruntime"


def test_a_torn_graph_in_the_cache_is_not_trusted(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    OnnxEngine(bundle, tmp_path, 1)
    (graph,) = tmp_path.glob("*.onnx")
    graph.write_bytes(graph.read_bytes()[:1000])
    assert open_engine(bundle, "cpu", tmp_path, 1).name in ("cpu/onnxruntime", "cpu/torchscript", "cpu/torch")


def test_an_unknown_device_says_which_are_known(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="use auto, cpu, cuda or cuda:N"):
        open_engine(bundle, "gpu")


def test_the_processor_engine_starts_without_torch(bundle: Bundle) -> None:
    code = (
        "import sys, numpy; from pathlib import Path;"
        "from firstread.models.bundle import load_bundle; from firstread.models.engine import open_engine;"
        f"e = open_engine(load_bundle(Path({str(bundle.folder)!r})), 'cpu', None, 1);"
        "e.run(numpy.zeros((1, 64, 64), 'float32')); print(e.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu/onnxruntime", "False"]


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_processor(bundle: Bundle, squares: Squares) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    engine = open_engine(bundle, "cuda")
    assert engine.name == "cuda/torch"
    np.testing.assert_allclose(
        engine.run(squares).probabilities, EagerEngine(bundle).run(squares).probabilities, atol=1e-3
    )


@pytest.mark.gpu
def test_a_batch_too_large_for_the_gpu_is_halved(bundle: Bundle) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    engine = open_engine(bundle, "cuda")
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        batch = np.random.default_rng(0).random((20_000, 64, 64), dtype=np.float32)
        assert engine.run(batch).probabilities.shape == (20_000, 15)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
