"""Every engine gives the answers that eager torch gives, and none that fails does so silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

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
    SpreadEngine,
    Squares,
    open_engine,
)
from firstread.models.engine_onnx import OnnxEngine
from firstread.models.engine_openvino import OpenVinoEngine
from firstread.models.engine_torch import EagerEngine, ScriptEngine, fold_norms, network_of
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
    exact = {"cpu/onnxruntime", "cpu/openvino", "cpu/torchscript", "cpu/torch"}
    assert {row.name for row in found} - {"cpu/openvino-bf16"} == exact
    assert all(row.images_per_s > 0 and not row.refused for row in found if row.name in exact)
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
    assert names[:2] == ["cpu/torchscript", "cpu/torch"]
    assert names[2] == "cpu/onnxruntime"


@pytest.mark.parametrize("cached", [True, False], ids=["with a cache", "without"])
def test_openvino_agrees_with_torch(bundle: Bundle, squares: Squares, tmp_path: Path, cached: bool) -> None:
    found = OpenVinoEngine(bundle, tmp_path if cached else None, 1).run(squares)
    expected = EagerEngine(bundle).run(squares)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-3)


def test_openvino_talks_to_nobody(bundle: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; from firstread.models.bundle import load_bundle;"
        "from firstread.models.engine_openvino import OpenVinoEngine;"
        f"OpenVinoEngine(load_bundle(Path({str(bundle.folder)!r})), None, 1);"
        "sys.exit(any(name.startswith('openvino_telemetry.') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_engine_let_go_in_another_thread_leaves_a_process_that_bears_signals(bundle: Bundle) -> None:
    code = f"""
import gc, os, signal, threading
from pathlib import Path
from firstread.models.bundle import load_bundle
from firstread.models.engine_openvino import OpenVinoEngine

engines = [OpenVinoEngine(load_bundle(Path({str(bundle.folder)!r})), None, 1)]
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
thread = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n")


def test_bfloat16_reports_only_where_the_canaries_agree(bundle: Bundle) -> None:
    """On a processor with it the reduced precision is tried like any engine, and struck off like any engine."""

    class Coarse(EagerEngine):
        def raw(self, batch: Squares, coded: np.ndarray | None = None) -> Raw:
            logits, maps = super().raw(batch, coded)
            return logits + np.float32(0.05), maps

    row = engine_choice._measure("cpu/openvino-bf16", lambda: Coarse(bundle), bundle)
    assert row.images_per_s == 0 and "must not be reported" in row.refused


@pytest.mark.parametrize(("flags", "tried"), [("avx2 avx512_bf16", True), ("sse4_2", False)])
def test_bfloat16_is_tried_where_the_processor_has_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, flags: str, tried: bool
) -> None:
    monkeypatch.setattr(engine_choice, "_flags", lambda: frozenset(flags.split()))
    assert ("cpu/openvino-bf16" in engine_choice._makers(bundle, None, 1)) is tried


def test_without_openvino_the_others_are_measured(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "firstread.models.engine_openvino", None)
    maker = engine_choice._makers(bundle, tmp_path, 1)["cpu/openvino"]
    row = engine_choice._measure("cpu/openvino", maker, bundle)
    assert (row.images_per_s == 0 and "Import" in row.refused) or "ModuleNotFound" in row.refused


def test_a_nearly_equal_engine_does_not_displace_the_one_that_needs_no_torch(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"name": "cpu/torchscript", "images_per_s": 20.5}, {"name": "cpu/onnxruntime", "images_per_s": 20.2}]
    engine_choice._file(bundle, tmp_path, 1).write_text(json.dumps(rows))
    assert engine_choice.cpu_engines(bundle, tmp_path, 1)[0][0] == "cpu/onnxruntime"


@pytest.mark.parametrize("damage", ["torn", "one bit", "seal gone", "empty"])
def test_a_damaged_graph_in_the_cache_is_written_anew(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    OnnxEngine(bundle, tmp_path, 1)
    (graph,), (seal,) = tmp_path.glob("*.onnx"), tmp_path.glob("*.sha256")
    whole = graph.read_bytes()
    middle = len(whole) // 2
    graph.write_bytes(
        {
            "torn": whole[:1000],
            "one bit": whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :],
            "seal gone": whole,
            "empty": b"",
        }[damage]
    )
    if damage == "seal gone":
        seal.unlink()
    assert open_engine(bundle, "cpu", tmp_path, 1).name == "cpu/onnxruntime"
    assert graph.read_bytes() == whole
    assert seal.is_file()


@pytest.mark.parametrize(
    "damage",
    ["", "[", "{}", "[1]", '[{"name": "cpu/torch"}]', '[{"name": "cpu/torch", "images_per_s": "fast"}]',
     '[{"name": "cpu/torch", "images_per_s": NaN}]', "\x00\xff"],
)  # fmt: skip
def test_a_damaged_measurement_is_none(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    engine_choice._file(bundle, tmp_path, 1).write_text(damage, encoding="latin-1")
    assert engine_choice.remembered(bundle, tmp_path, 1) == ()


def test_a_damaged_measurement_is_made_anew(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Event()
    monkeypatch.setattr(engine_choice, "measurements", lambda *_: asked.set())
    engine_choice._file(bundle, tmp_path, 1).write_text("[")
    names = [name for name, _ in engine_choice.cpu_engines(bundle, tmp_path, 1)]
    assert names[0] == "cpu/onnxruntime"
    assert asked.wait(10)


def test_what_was_struck_off_is_said_with_its_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Engine:
        raise OSError("library not found")

    def wrong() -> Engine:
        return FakeDevice(bundle)

    engines = [("cpu/broken", broken), ("cpu/wrong", wrong), ("cpu/onnxruntime", lambda: OnnxEngine(bundle, None, 1))]
    monkeypatch.setattr(engine_choice, "cpu_engines", lambda *_: engines)
    engine = open_engine(bundle, "cpu")
    assert engine.name == "cpu/onnxruntime"
    first, second = engine.struck_off
    assert first == "cpu/broken: OSError: library not found"
    assert second.startswith("cpu/wrong: ") and "must not be reported" in second


def test_an_engine_that_fails_at_its_canaries_leaves_the_next_one_to_try(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [("cpu/lost", lambda: FakeDevice(bundle, lost_at=1)), ("cpu/torch", lambda: EagerEngine(bundle))]
    monkeypatch.setattr(engine_choice, "cpu_engines", lambda *_: engines)
    assert open_engine(bundle, "cpu").name == "cpu/torch"


def test_with_little_memory_torch_is_not_loaded_to_be_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_be_made() -> Engine:
        raise AssertionError("made")

    monkeypatch.setattr(engine_choice, "memory_bytes", lambda: 4 << 30)
    for name in ("cpu/torch", "cpu/torchscript"):
        row = engine_choice._measure(name, must_not_be_made, bundle)
        assert (row.images_per_s, row.refused) == (0.0, "not tried with 4.3 GB of memory")
    row = engine_choice._measure("cpu/onnxruntime", lambda: OnnxEngine(bundle, None, 1), bundle)
    assert row.images_per_s > 0


@pytest.mark.parametrize(("limit", "bound"), [("1048576\n", True), ("max\n", False)])
def test_memory_is_what_the_control_group_leaves(monkeypatch: pytest.MonkeyPatch, limit: str, bound: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: limit)
    assert (engine_choice.memory_bytes() == 1 << 20) is bound


def test_engines_are_ranked_by_speed_and_near_ones_by_memory() -> None:
    names = ["first", "second", "third", "refused"]
    known = [engine_choice.Measurement(*row) for row in (("first", 97.5), ("second", 90.0), ("third", 100.0))]
    assert engine_choice.ranked(names, known) == ["first", "third", "second", "refused"]


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
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    engine = open_engine(bundle, "cuda")
    assert engine.name.startswith("cuda/torch")
    np.testing.assert_allclose(
        engine.run(squares).probabilities, EagerEngine(bundle).run(squares).probabilities, atol=1e-3
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_a_graph_of_each_size_gives_what_the_processor_gives(bundle: Bundle, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from firstread.models.engine_torch import CudaEngine

    engine, expected = CudaEngine(bundle, "cuda:0", precision), EagerEngine(bundle)
    batch = np.random.default_rng(5).random((40, 64, 64), dtype=np.float32)
    for films in (1, 3, 8, 1, 32, 33, 40):
        found = engine.run(batch[:films])
        tolerance = 1e-4 if precision == "f32" else 2e-2
        np.testing.assert_allclose(
            found.probabilities, expected.run(batch[:films]).probabilities, atol=tolerance
        )  # fmt: skip
        assert found.saliency is not None and len(found.saliency) == films
    assert all(engine._graphs.values()), "every size was captured"


@pytest.mark.gpu
def test_engines_that_capture_at_the_same_time_do_not_spoil_each_other(bundle: Bundle) -> None:
    """Two on one GPU stand for two GPUs."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from firstread.models.engine_torch import CudaEngine

    parts = [CudaEngine(bundle, "cuda:0"), CudaEngine(bundle, "cuda:0")]
    spread, expected = SpreadEngine(parts), EagerEngine(bundle)
    batch = np.random.default_rng(6).random((32, 64, 64), dtype=np.float32)
    for films in (2, 7, 16, 32, 5):
        found = spread.run(batch[:films]).probabilities
        np.testing.assert_allclose(found, expected.run(batch[:films]).probabilities, atol=1e-4)
    assert all(graph is not None for part in parts for graph in part._graphs.values())


def test_folded_norms_change_no_answer(bundle: Bundle, squares: Squares) -> None:
    engine, expected = EagerEngine(bundle), EagerEngine(bundle).run(squares)
    engine._network = fold_norms(network_of(bundle))
    assert not [one for one in engine._network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    found = engine.run(squares)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_a_batch_is_spread_over_devices_and_comes_back_in_order(bundle: Bundle, squares: Squares) -> None:
    taken: list[int] = []

    class Counting(EagerEngine):
        def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
            taken.append(len(batch))
            return super().raw(batch, coded)

    spread = SpreadEngine([Counting(bundle), Counting(bundle)])
    expected = EagerEngine(bundle).run(squares)
    found = spread.run(squares)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert sorted(taken) == [2, 3]
    taken.clear()
    assert spread.run(squares[:1]).probabilities.shape == (1, 15)
    assert taken == [1]


@pytest.mark.gpu
def test_a_batch_too_large_for_the_gpu_is_halved(bundle: Bundle) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    engine = open_engine(bundle, "cuda")
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        batch = np.random.default_rng(0).random((20_000, 64, 64), dtype=np.float32)
        assert engine.run(batch).probabilities.shape == (20_000, 15)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
