"""Canaries on duty: at load, every hour and after a change of device; when they stop singing nothing is reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from firstread.agent import models_at_hand, roles, schedule
from firstread.agent.models_at_hand import ModelsAtHand
from firstread.agent.store import images, studies, watch
from firstread.agent.store.tables import ImageState
from firstread.models import engine as engines
from firstread.models import engine_choice
from firstread.models.bundle import Bundle, load_bundle
from firstread.models.engine import DeviceLost, Engine, EngineError, FallbackEngine, open_engine
from firstread.models.engine_onnx import OnnxEngine
from firstread.models.phantoms import PhantomSpec, draw
from tests.agent.builders import Bench
from tests.models.test_bundle import reseal
from tests.models.tiny import make_tiny_bundle

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bundle(tiny: Path) -> Bundle:
    return load_bundle(tiny)


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """By how much every logit of the processor's engine is off, from the moment it is set."""
    off = {"by": 0.0}
    sound = OnnxEngine.raw

    def raw(self: OnnxEngine, *given: Any) -> Any:
        logits, activations = sound(self, *given)
        return logits + np.float32(off["by"]), activations

    monkeypatch.setattr(OnnxEngine, "raw", raw)
    # The other engines would be tried in its place, and would be right.
    only_onnx = engine_choice._makers

    def makers(*given: Any) -> Any:
        return {name: make for name, make in only_onnx(*given).items() if name == "cpu/onnxruntime"}

    monkeypatch.setattr(engine_choice, "_makers", makers)
    return off


class Alarms:
    """What was raised and cleared, by key."""

    def __init__(self) -> None:
        self.standing: dict[str, tuple[str, str]] = {}

    def raised(self, key: str, text: str, remedy: str) -> None:
        self.standing[key] = (text, remedy)

    def cleared(self, key: str) -> None:
        self.standing.pop(key, None)


def at_hand(folder: Path, alarms: Alarms, cache: Path) -> ModelsAtHand:
    return ModelsAtHand(
        str(folder), "cpu", cache=cache, threads=1, raise_alarm=alarms.raised, clear_alarm=alarms.cleared
    )


def test_at_load_a_bundle_whose_canaries_come_out_wrong_is_not_fit_to_report(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "other")

    def expect_otherwise(table: dict[str, Any]) -> None:
        expected = table["canary"][0]["expected"]
        expected["Pneumonia"] = 1 - expected["Pneumonia"]

    reseal(folder, expect_otherwise)
    alarms = Alarms()
    models = at_hand(folder, alarms, tmp_path / "engines")
    assert not models.fit_to_report()
    text, remedy = alarms.standing["model"]
    assert "Pneumonia of canary_1.png" in text
    assert "firstread models verify" in remedy


def test_at_load_a_sound_bundle_is_fit_and_no_alarm_stands(tiny: Path, tmp_path: Path) -> None:
    alarms = Alarms()
    assert at_hand(tiny, alarms, tmp_path / "engines").fit_to_report()
    assert alarms.standing == {}


def test_a_second_bundle_for_a_replay_shows_its_canaries_before_its_first_film(tiny: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=8)
    reseal(other, lambda table: table["canary"][0]["expected"].update(Mass=0.123456))
    models = at_hand(tiny, Alarms(), tmp_path / "engines")
    assert models.fit_to_report()
    with pytest.raises(EngineError, match=r"Mass of canary_1\.png"):
        models.named(str(other))
    assert models.fit_to_report(), "the bundle in force has nothing to do with it"


def test_every_hour_the_analyser_is_told_to_look_at_its_canaries() -> None:
    (job,) = (job for job in schedule.JOBS if job.name == "canary")
    assert (job.role, job.every_s) == ("analyse", 3600.0)


def test_a_look_that_is_due_finds_a_drift_and_the_model_reports_nothing_until_it_is_gone(
    tiny: Path, tmp_path: Path, drift: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_at_hand, "RETRY_S", 0.0)
    alarms = Alarms()
    models = at_hand(tiny, alarms, tmp_path / "engines")
    assert models.fit_to_report()
    drift["by"] = 0.1
    assert models.fit_to_report(), "between two looks nothing is known of it"
    models.check_soon()
    assert not models.fit_to_report()
    assert "must not be reported" in alarms.standing["model"][0]
    assert not models.fit_to_report(), "not even when it is asked again"
    drift["by"] = 0.0
    assert models.fit_to_report()
    assert alarms.standing == {}


def test_a_difference_of_rounding_is_no_drift(
    tiny: Path, tmp_path: Path, drift: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = at_hand(tiny, Alarms(), tmp_path / "engines")
    assert models.fit_to_report()
    drift["by"] = 1e-4
    models.check_soon()
    assert models.fit_to_report()


def test_a_batch_that_fails_in_the_model_makes_a_look_due(tiny: Path, tmp_path: Path, drift: dict[str, float]) -> None:
    alarms = Alarms()
    models = at_hand(tiny, alarms, tmp_path / "engines")
    assert models.fit_to_report()
    drift["by"] = 0.1
    models.failed(models.named(None), RuntimeError("out of step"))
    assert not models.fit_to_report()
    assert "model" in alarms.standing


def test_after_a_lost_device_the_engines_are_opened_anew_and_their_canaries_run(
    tiny: Path, tmp_path: Path, drift: dict[str, float]
) -> None:
    alarms = Alarms()
    models = at_hand(tiny, alarms, tmp_path / "engines")
    assert models.fit_to_report()
    drift["by"] = 0.1
    models.forget()
    assert not models.fit_to_report()
    assert "model" in alarms.standing


class LostDevice(Engine):
    """A GPU that falls off the bus with its first batch."""

    name = "fake/gpu"
    device = "fake:0"

    def raw(self, *_: Any) -> Any:
        raise DeviceLost("fake:0: has fallen off the bus")


def test_the_processor_that_takes_over_from_a_lost_device_shows_its_canaries_first(bundle: Bundle) -> None:
    told: list[str] = []
    seen: list[int] = []
    first = bundle.canaries[0]
    lies = replace(first, expected={label: 1 - value for label, value in first.expected.items()})
    wrong = replace(bundle, canaries=(lies, *bundle.canaries[1:]))
    squares = np.zeros((2, bundle.input_size, bundle.input_size), np.float32)

    sound = FallbackEngine(LostDevice(bundle), lambda: open_engine(bundle, "cpu", threads=1), told.append)
    assert sound.run(squares).probabilities.shape == (2, len(bundle.labels))
    assert len(told) == 1
    assert "analysis goes on with cpu/" in told[0]

    doubtful = FallbackEngine(LostDevice(wrong), lambda: open_engine(wrong, "cpu", threads=1), told.append)
    with pytest.raises(EngineError, match="must not be reported"):
        seen.append(len(doubtful.run(squares).probabilities))
    assert seen == []
    assert len(told) == 1


def test_a_gpu_whose_canaries_come_out_wrong_is_passed_over_with_an_alarm(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firstread.models import engine_torch

    class Blurred(Engine):
        name = "cuda/torch"
        device = "cuda:0"

        def __init__(self, bundle: Bundle, _device: str, _precision: str) -> None:
            super().__init__(bundle)
            self._inner = engine_torch.EagerEngine(bundle)

        def raw(self, *given: Any) -> Any:
            logits, activations = self._inner.raw(*given)
            return logits * np.float32(1.1), activations

    monkeypatch.setattr(engine_torch, "CudaEngine", Blurred)
    monkeypatch.setattr(engines, "_has_gpu", lambda: True)
    told: list[str] = []
    assert open_engine(bundle, "auto", threads=1, on_alarm=told.append).name.startswith("cpu/")
    assert "the GPU cannot be used" in told[0]
    with pytest.raises(EngineError, match="must not be reported"):
        open_engine(bundle, "cuda", threads=1)


class Duty:
    """The analyser's own role in a thread, with its real schedule, store and alarms."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.stop = threading.Event()
        self.thread = threading.Thread(target=roles._analyse, args=(bench.settings, bench.store, self.stop))
        self.thread.start()

    def alarms(self) -> dict[str, Any]:
        with self.bench.store.read() as connection:
            return {alarm.key: alarm for alarm in watch.alarms(connection)}

    def images(self) -> list[ImageState]:
        with self.bench.store.read() as connection:
            rows = studies.selected(connection, studies.StudyFilter(), 10)
            return [one.state for row in rows for one in studies.images_of(connection, row.id)]

    def waits_until(self, true: Callable[[], bool]) -> bool:
        end = time.monotonic() + PATIENCE_S
        while not true():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture
def duty(
    tiny: Path, tmp_path: Path, drift: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Duty]]:
    monkeypatch.setattr(models_at_hand, "RETRY_S", 0.2)
    hourly = [replace(job, every_s=0.5) if job.name == "canary" else job for job in schedule.JOBS]
    monkeypatch.setattr(schedule, "JOBS", tuple(hourly))
    # Which engine is fastest is not asked here, and to measure it takes long.
    monkeypatch.setattr(engine_choice, "measurements", lambda *_: ())
    bench = Bench(tmp_path / "spool", bundle=tiny, analysis={"device": "cpu", "threads": 1, "decode_workers": 1})
    begun: list[Duty] = []

    def begin() -> Duty:
        begun.append(Duty(bench))
        return begun[0]

    yield begin
    for one in begun:
        one.stop.set()
        one.thread.join(PATIENCE_S)
    bench.store.close()


def film(bench: Bench) -> None:
    pixels = (draw(PhantomSpec(seed=4, size=(256, 256))).image * 4000).astype(np.uint16)
    bench.receive(Rows=256, Columns=256, PixelData=pixels.tobytes())


def test_a_model_that_changes_its_mind_on_duty_reports_nothing_raises_an_alarm_and_goes_on_when_it_is_sound(
    duty: Callable[[], Duty], drift: dict[str, float]
) -> None:
    on_duty = duty()
    film(on_duty.bench)
    assert on_duty.waits_until(lambda: on_duty.images() == [ImageState.ANALYSED]), on_duty.images()
    assert "model" not in on_duty.alarms()

    drift["by"] = 0.5
    assert on_duty.waits_until(lambda: "model" in on_duty.alarms()), "the schedule did not look at the canaries"
    alarm = on_duty.alarms()["model"]
    assert alarm.severity == "critical"
    assert "the model cannot report" in alarm.text
    assert "films wait" in alarm.remedy
    film(on_duty.bench)
    time.sleep(1.5)
    assert sorted(on_duty.images()) == sorted([ImageState.ANALYSED, ImageState.WAITING])
    with on_duty.bench.store.read() as connection:
        assert images.any_waiting(connection)

    drift["by"] = 0.0
    assert on_duty.waits_until(lambda: on_duty.images() == [ImageState.ANALYSED] * 2), on_duty.images()
    assert "model" not in on_duty.alarms()


def test_a_poor_machine_has_an_engine_and_the_log_says_what_it_is(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One core, no AVX2, 4 GB."""
    monkeypatch.setattr(engine_choice, "_flags", lambda: frozenset({"sse4_2"}))
    monkeypatch.setattr(engine_choice, "memory_bytes", lambda: 4 << 30)
    monkeypatch.setattr(engine_choice, "measurements", lambda *_: ())
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})

    def never(*_: str) -> None:
        pytest.fail("an alarm")

    models = ModelsAtHand(
        str(tiny), "auto", cache=tmp_path, threads=None, raise_alarm=never, clear_alarm=lambda _: None
    )
    with capture_logs() as logs:
        assert models.fit_to_report()
    (said,) = [one for one in logs if one["event"] == "model loaded"]
    assert said["engine"] == "cpu/onnxruntime"
    assert (said["threads"], said["avx2"], said["memory_gb"]) == (1, False, 4.3)
