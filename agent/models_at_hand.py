"""The bundles that the analyser has loaded, their engines, and whether they are fit to report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from firstread.agent.clock import boot_seconds
from firstread.models import canary
from firstread.models.bundle import Bundle, BundleError, load_bundle, reference_bundle
from firstread.models.engine import Engine, EngineError, open_engine, processor_threads
from firstread.models.engine_choice import described

log = structlog.get_logger()

RETRY_S = 5.0


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A bundle and the engine that runs it."""

    bundle: Bundle
    engine: Engine


Raise = Callable[[str, str, str], None]
"""Raises an alarm: key, text, remedy."""
Clear = Callable[[str], None]


def bundle_folder(name: str) -> Path:
    """The folder of a shipped bundle by name, or of any other by path."""
    return reference_bundle() if name == "reference" else Path(name).expanduser()


class ModelsAtHand:
    """Loads the bundle in force and, for replays, one other. A model whose canaries fail reports nothing."""

    def __init__(
        self, bundle: str, device: str, *, cache: Path, threads: int | None, raise_alarm: Raise, clear_alarm: Clear
    ) -> None:
        self._name = bundle
        self._device = device
        self._cache = cache
        self._threads = threads
        self._raise = raise_alarm
        self._clear = clear_alarm
        self._loaded: dict[str, LoadedModel] = {}
        self._tried_at = -RETRY_S
        self._check_due = threading.Event()

    def check_soon(self) -> None:
        """Asks for a look at the canaries before the next batch (the hourly job calls it)."""
        self._check_due.set()

    def fit_to_report(self) -> bool:
        """True when the bundle in force is loaded and its canaries sing; tries again every 5 s when not."""
        if self._name in self._loaded and not self._check_due.is_set():
            return True
        if self._name not in self._loaded and boot_seconds() - self._tried_at < RETRY_S:
            return False
        self._check_due.clear()
        self._tried_at = boot_seconds()
        try:
            self._check(self.named(None))
        except (BundleError, EngineError, OSError, RuntimeError, ValueError, MemoryError) as error:
            self._loaded.pop(self._name, None)
            log.error("the model cannot report", error=str(error))
            self._raise("model", f"the model cannot report: {error}", "run `firstread models verify`; films wait")
            return False
        self._clear("model")
        return True

    def named(self, bundle: str | None) -> LoadedModel:
        """The model of a bundle (None: the one in force), loaded when it is not yet. Raises BundleError."""
        name = bundle or self._name
        if name not in self._loaded:
            for other in [key for key in self._loaded if key != self._name]:
                del self._loaded[other]
            loaded = load_bundle(bundle_folder(name))
            engine = open_engine(
                loaded, self._device, cache=self._cache, threads=self._threads, on_alarm=self._device_alarm
            )
            self._loaded[name] = LoadedModel(loaded, engine)
            for reason in engine.struck_off:
                log.warning("engine struck off", reason=reason[:300])
            log.info(
                "model loaded",
                bundle=loaded.name,
                version=loaded.version,
                engine=engine.name,
                **described(processor_threads(self._threads)),
            )
            if bundle is not None:
                self._check(self._loaded[name])
        return self._loaded[name]

    def forget(self) -> None:
        """Every engine is opened anew: their device failed."""
        self._loaded.clear()
        self._tried_at = -RETRY_S

    def _device_alarm(self, text: str) -> None:
        self._raise("device", text, "look at the GPU and its driver, then restart the analyser")

    def failed(self, model: LoadedModel, error: Exception) -> None:
        """A batch failed in the model: look at the canaries before anything else is analysed."""
        log.warning("model under suspicion", bundle=model.bundle.name, error=str(error))
        self.check_soon()

    def _check(self, model: LoadedModel) -> None:
        result = canary.check(model.engine, model.bundle)
        if not result.ok:
            raise BundleError(
                f"canaries of {model.bundle.name} differ by {result.worst_difference:.4f}: {result.detail}"
            )
