"""What a site asks of its version of a bundle: method, operating points, volume, prevalences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from firstread.models.bundle import Bundle
from firstread.models.calibration.fitting import KEEP, METHODS
from firstread.models.data.film import DataError
from firstread.models.findings import NO_FINDING

AUTO = "auto"
ABNORMAL = "Abnormal"
"""Asked for by sensitivity: the share of films with any finding that must not be called No Finding."""


@dataclass(frozen=True)
class Wishes:
    """``method``: ``auto``, ``keep`` or one of the methods of :mod:`fitting`.

    ``sensitivity``, ``specificity``: label to the share wanted; No Finding only by specificity (which is the
    sensitivity for abnormal films). ``alerts_per_day`` of ``films_per_day``: how many films the raising labels may
    raise together; the second alone is for telling. ``prevalence``: label to how often it truly occurs at the site.
    ``raising``: the labels whose call raises a film; empty for those of the bundle that are not experimental.
    """

    method: str = AUTO
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    specificity: Mapping[str, float] = field(default_factory=dict)
    alerts_per_day: float | None = None
    films_per_day: float | None = None
    prevalence: Mapping[str, float] = field(default_factory=dict)
    raising: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            DataError: names the option and what to do.
        """
        if self.method not in (AUTO, KEEP, *METHODS):
            choices = ", ".join((AUTO, KEEP, *METHODS))
            raise DataError(f"calibration method {self.method!r} is unknown: use one of {choices}")
        both = sorted(set(self.sensitivity) & set(self.specificity))
        if both:
            raise DataError(f"{both[0]} is asked for by sensitivity and by specificity: one threshold cannot do both")
        for name, value in (("alerts a day", self.alerts_per_day), ("films a day", self.films_per_day)):
            if value is not None and not 0 < value < 1e6:
                raise DataError(f"{value:g} {name} cannot be meant: give a number above 0")
        if self.alerts_per_day is not None:
            if self.films_per_day is None:
                raise DataError("alerts a day mean nothing without the volume: give the films a day as well")
            if self.alerts_per_day >= self.films_per_day:
                raise DataError(
                    f"{self.alerts_per_day:g} alerts of {self.films_per_day:g} films a day would raise every film:"
                    " ask for fewer"
                )

    @property
    def alert_share(self) -> float | None:
        """Share of the films that may be raised."""
        if self.alerts_per_day is None or self.films_per_day is None:
            return None
        return self.alerts_per_day / self.films_per_day


def read_wishes(
    bundle: Bundle,
    *,
    method: str = AUTO,
    sensitivity: Iterable[str] = (),
    specificity: Iterable[str] = (),
    prevalence: Iterable[str] = (),
    raising: Iterable[str] = (),
    alerts_per_day: float | None = None,
    films_per_day: float | None = None,
) -> Wishes:
    """Wishes from what was typed: ``LABEL=0.95``, several by comma or by repeating; names in any case, ``_`` or space.

    Raises:
        DataError: a label that the bundle does not assess, a value that is no share, a label named twice.
    """
    hits = _shares(sensitivity, (*bundle.labels, ABNORMAL), "sensitivity")
    quiet = _shares(specificity, bundle.labels, "specificity")
    if NO_FINDING in hits:
        raise DataError(
            f"a sensitivity for {NO_FINDING} would bound how many healthy films are called so, not how many sick ones"
            f' are missed: ask for "{ABNORMAL}={hits[NO_FINDING]:g}" (films with a finding that are not called'
            f" {NO_FINDING})"
        )
    if ABNORMAL in hits:
        if NO_FINDING not in bundle.labels:
            raise DataError(f"the bundle does not assess {NO_FINDING}: no sensitivity for abnormal films can be set")
        if NO_FINDING in quiet:
            raise DataError(f"{ABNORMAL} and the specificity of {NO_FINDING} are the same wish: give one of them")
        quiet[NO_FINDING] = hits.pop(ABNORMAL)
    named = [_label(name, bundle.labels, "raising") for text in raising for name in text.split(",") if name.strip()]
    if NO_FINDING in named:
        raise DataError(f"{NO_FINDING} raises nothing: name findings")
    return Wishes(
        method=method.strip().lower(),
        sensitivity=hits,
        specificity=quiet,
        alerts_per_day=alerts_per_day,
        films_per_day=films_per_day,
        prevalence=_shares(prevalence, bundle.labels, "prevalence", open_end=True),
        raising=tuple(dict.fromkeys(named)),
    )


def _shares(texts: Iterable[str], labels: Sequence[str], option: str, open_end: bool = False) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",") if part.strip()):
        name, sign, number = part.rpartition("=")
        if not sign:
            raise DataError(f'{option} {part.strip()!r} names no label: write it as "LABEL=0.95"')
        label = _label(name, labels, option)
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not 0 < value <= 1 or (open_end and value == 1):
            raise DataError(f"{option} of {label} is {number.strip()!r}: it is a share above 0 and below 1, as 0.95")
        if label in found:
            raise DataError(f"{option} of {label} is given twice: give it once")
        found[label] = value
    return found


def _label(name: str, labels: Sequence[str], option: str) -> str:
    plain = {_plain(label): label for label in labels}
    if _plain(name) not in plain:
        raise DataError(f"{option} names {name.strip()!r}, which the bundle does not assess: use {', '.join(labels)}")
    return plain[_plain(name)]


def _plain(name: str) -> str:
    return name.strip().strip('"').replace("_", " ").lower()
