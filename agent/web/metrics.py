"""/metrics: Prometheus text, computed from the database at each scrape, so that a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from firstread.agent.store.overview import Overview, quantile

WINDOW = "over the last hour"
QUANTILES = (0.5, 0.9, 0.99)


class _Once(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def metrics_text(
    facts: Overview,
    deliveries: Mapping[tuple[str, str, str], int],
    refusals: Mapping[str, int],
    stages: Mapping[str, list[float]],
    certificates: Mapping[str, float],
    now: datetime,
) -> bytes:
    """Everything as Prometheus reads it. ``refusals`` and ``stages`` speak of the last hour; ``certificates``: days
    left, by the setting that names one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        _Once(
            [
                *_queue(facts, now),
                *_roles(facts),
                *_flow(deliveries, refusals),
                *_stages(stages),
                *_batches(facts),
                *_certificates(certificates),
            ]
        )
    )
    return bytes(generate_latest(registry))


def _queue(facts: Overview, now: datetime) -> Iterable[Metric]:
    for name, what, counts in (
        ("images", "Films by state.", facts.images),
        ("studies", "Studies by state.", facts.studies),
        ("worklist_entries", "Entries of the reading list by state.", facts.entries),
    ):
        family = GaugeMetricFamily(f"firstread_{name}", what, labels=["state"])
        for state, count in counts.items():
            family.add_metric([state], count)
        yield family
    oldest = GaugeMetricFamily(
        "firstread_oldest_waiting_seconds", "Age of the oldest that waits; 0 when nothing does.", labels=["queue"]
    )
    ages = {"images": facts.oldest_waiting_image, "studies": facts.oldest_open_study, "worklist": facts.oldest_entry}
    ages |= {f"delivery:{one.name}": one.oldest_pending for one in facts.destinations}
    for queue, since in ages.items():
        oldest.add_metric([queue], max(0.0, (now - since).total_seconds()) if since else 0.0)
    yield oldest


def _certificates(days_left: Mapping[str, float]) -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "firstread_certificate_days_left", "Days until a certificate of ours ends.", labels=["setting"]
    )
    for setting, days in sorted(days_left.items()):
        family.add_metric([setting], days)
    return (family,)


def _roles(facts: Overview) -> Iterable[Metric]:
    alive = GaugeMetricFamily("firstread_role_alive", "1 while a role gives signs of life.", labels=["role"])
    age = GaugeMetricFamily("firstread_role_beat_age_seconds", "Since a role's last sign of life.", labels=["role"])
    for one in facts.roles:
        alive.add_metric([one.name], float(one.alive))
        age.add_metric([one.name], one.beat_age_s)
    alarms = GaugeMetricFamily("firstread_alarms", "Alarms that stand.", labels=["severity"])
    for severity in ("critical", "warning"):
        alarms.add_metric([severity], sum(1 for one in facts.alarms if one.severity == severity))
    receiver = facts.role("receive")
    associations = GaugeMetricFamily("firstread_associations", "DICOM associations that are open.")
    associations.add_metric([], float(receiver.status.get("associations") or 0) if receiver else 0.0)
    refusing = GaugeMetricFamily(
        "firstread_refusing_associations", "1 while senders are told to come back later: disk or queue is full."
    )
    refusing.add_metric([], 1.0 if receiver and receiver.status.get("refusing") else 0.0)
    return alive, age, alarms, associations, refusing


def _flow(deliveries: Mapping[tuple[str, str, str], int], refusals: Mapping[str, int]) -> Iterable[Metric]:
    sent = GaugeMetricFamily(
        "firstread_deliveries", "Deliveries by destination, kind and state.", labels=["destination", "kind", "state"]
    )
    for labels, count in sorted(deliveries.items()):
        sent.add_metric(list(labels), count)
    refused = GaugeMetricFamily("firstread_refused_films", f"Films refused by status, {WINDOW}.", labels=["status"])
    for status, count in sorted(refusals.items()):
        refused.add_metric([status], count)
    return sent, refused


def _stages(stages: Mapping[str, list[float]]) -> Iterable[Metric]:
    latency = GaugeMetricFamily(
        "firstread_stage_latency_seconds", f"Seconds that a stage took, {WINDOW}.", labels=["stage", "quantile"]
    )
    ended = GaugeMetricFamily("firstread_stage_ended", f"How many ended a stage, {WINDOW}.", labels=["stage"])
    for stage, values in sorted(stages.items()):
        ended.add_metric([stage], len(values))
        for share in QUANTILES:
            value = quantile(values, share)
            if value is not None:
                latency.add_metric([stage, str(share)], value)
    return latency, ended


def _batches(facts: Overview) -> Iterable[Metric]:
    """How many films went through the model at once, since the analyser started."""
    analyser = facts.role("analyse")
    sizes = analyser.status.get("batch_sizes") if analyser else None
    counts = {int(size): int(count) for size, count in sizes.items()} if isinstance(sizes, dict) else {}
    total, films = 0, 0
    buckets: list[tuple[str, float]] = []
    for limit in sorted({1, 2, 4, 8, 16, 32, 64, 128, 256}):
        buckets.append((str(float(limit)), float(sum(count for size, count in counts.items() if size <= limit))))
    for size, count in counts.items():
        total, films = total + count, films + size * count
    family = HistogramMetricFamily("firstread_batch_films", "Films in one pass through the model.")
    family.add_metric([], [*buckets, ("+Inf", float(total))], sum_value=float(films))
    yield family
