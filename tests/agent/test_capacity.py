"""The model of capacity against what queueing theory and a simulation know."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firstread.agent.capacity import MEASURED, MOST_BUSY, carried, measured_stages
from firstread.agent.cli import app
from firstread.agent.queueing import erlang_c, mean_wait_s, wait_percentile_s


def test_one_server_is_m_m_1() -> None:
    rate, service = 0.7, 1.0
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert mean_wait_s(rate, service) == pytest.approx(0.7 / (1 / service - rate))
    # P(W > t) = rho exp(-(mu - lambda) t)
    assert wait_percentile_s(0.99, rate, service) == pytest.approx(math.log(0.7 / 0.01) / 0.3)


@pytest.mark.parametrize(("servers", "offered", "chance"), [(2, 1.0, 1 / 3), (10, 8.0, 0.40918), (5, 4.0, 0.55411)])
def test_erlang_c_has_the_values_of_its_tables(servers: int, offered: float, chance: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(chance, abs=1e-5)


def test_even_service_halves_the_wait_of_one_server() -> None:
    assert mean_wait_s(0.5, 1.0, cv2=0.0) == pytest.approx(mean_wait_s(0.5, 1.0) / 2)  # Pollaczek and Khinchine
    assert mean_wait_s(0.5, 1.0, cv2=0.0) == pytest.approx(0.5)


def test_more_than_can_be_served_waits_for_ever_and_nobody_waits_where_nobody_comes() -> None:
    assert math.isinf(mean_wait_s(2.0, 1.0, 2)) and math.isinf(wait_percentile_s(0.99, 3.0, 1.0, 2))
    assert mean_wait_s(0.0, 1.0, 4) == 0 and wait_percentile_s(0.99, 1e-6, 1.0, 4) == 0
    with pytest.raises(ValueError, match="at least one server"):
        erlang_c(0, 1.0)


@pytest.mark.parametrize(("servers", "cv2"), [(1, 1.0), (3, 1.0), (3, 0.25)])
def test_a_simulated_queue_waits_as_long_as_the_formula_says(servers: int, cv2: float) -> None:
    chance = random.Random(4)
    rate, service = 0.8 * servers, 1.0
    shape = 1 / cv2
    free, now, waits = [0.0] * servers, 0.0, []
    for _ in range(200_000):
        now += chance.expovariate(rate)
        free.sort()
        begins = max(now, free[0])
        free[0] = begins + chance.gammavariate(shape, service / shape)
        waits.append(begins - now)
    waits = sorted(waits[1000:])
    assert sum(waits) / len(waits) == pytest.approx(mean_wait_s(rate, service, servers, cv2), rel=0.1)
    assert waits[int(0.99 * len(waits))] == pytest.approx(
        wait_percentile_s(0.99, rate, service, servers, cv2), rel=0.15
    )


STAGES = {"receive": 0.04, "decode": 0.03, "analyse": 0.12, "studies": 0.06, "deliver": 0.04, "web": 0.01}


def test_few_cores_are_the_limit_and_many_leave_it_to_the_longest_single_process() -> None:
    two = carried(10_000, 2, stages=STAGES)
    assert two.limit == "the 2 cores"
    assert two.utilisation == pytest.approx(10_000 * 0.12 / 3600 * 0.30 / 2)
    many = carried(10_000, 32, stages=STAGES)
    assert many.limit == "studies (one process)" and many.most_films_per_day == pytest.approx(
        MOST_BUSY / 0.06 * 3600 / 0.12
    )
    assert carried(10_000, 64, stages=STAGES).most_films_per_day == pytest.approx(many.most_films_per_day)
    assert carried(2 * many.most_films_per_day, 32, stages=STAGES).machines == 2


def test_a_gpu_takes_the_network_off_the_cores_and_is_a_queue_itself() -> None:
    with_gpu = carried(60_000, 2, stages=STAGES, gpu_films_per_s=500)
    assert with_gpu.work_s == pytest.approx(0.30 - 0.12 + 0.002)
    assert with_gpu.p99_wait_s < carried(60_000, 2, stages=STAGES).p99_wait_s
    assert carried(10_000, 32, stages=STAGES, gpu_films_per_s=1).limit == "the GPU"


@pytest.mark.parametrize("wrong", [{"films_per_day": 0}, {"cores": 0}, {"peak_share": 1.5}, {"stages": {"receive": 0}}])
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        carried(**({"films_per_day": 100.0, "cores": 2} | wrong))  # type: ignore[arg-type]


def test_the_command_tells_of_the_sizes_that_were_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({"burst": {"CPU s a film": {**STAGES, "RIS": 9.0}}}))
    assert measured_stages(file) == STAGES
    asked = ["capacity", "--films-per-day", "5000", "--cores", "2", "--cores", "16", "--measured", str(file)]
    done = CliRunner().invoke(app, [*asked, "--gpu-films-per-s", "400", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [(one["cores"], one["gpu"]) for one in found] == [(2, False), (2, True), (16, False), (16, True)]
    words = CliRunner().invoke(app, ["capacity", "--films-per-day", "5000"]).output
    assert "2 cores" in words and "8 cores" in words and "32 cores" in words and "needed" in words
    file.write_text("{}")
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 1 and "benchmarks.end_to_end" in refused.output


def test_every_stage_was_measured() -> None:
    assert min(MEASURED.values()) > 0 and sum(MEASURED.values()) < 1
