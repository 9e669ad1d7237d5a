"""``capacity``: what one machine carries, by a queueing model over measured seconds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.capacity import PEAK_SHARE
from firstread.agent.commands.common import JsonOption, fail, print_json


def capacity(
    films_per_day: Annotated[float, typer.Option(min=1, help="Films that come on a day.")],
    cores: Annotated[list[int] | None, typer.Option(min=1, help="Cores of a machine; again for more of them.")] = None,
    gpu_films_per_s: Annotated[
        float | None, typer.Option(help="With a GPU: films/s of the network on it, as `benchmarks.inference` says.")
    ] = None,
    peak_share: Annotated[float, typer.Option(help="Share of the day's films in its busiest hour.")] = PEAK_SHARE,
    measured: Annotated[
        Path | None, typer.Option(help="Seconds of this machine: what `benchmarks.end_to_end --json FILE` wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What machines of some sizes do with so many films a day, and how many are needed."""
    from firstread.agent.capacity import MEASURED, MEASURED_ON, MOST_BUSY, carried, measured_stages

    try:
        stages = MEASURED if measured is None else measured_stages(measured)
        found = [
            carried(films_per_day, count, stages=stages, gpu_films_per_s=gpu, peak_share=peak_share)
            for count in cores or (2, 8, 32)
            for gpu in ((None,) if gpu_films_per_s is None else (None, gpu_films_per_s))
        ]
    except ValueError as error:
        fail(str(error))
    if as_json:
        print_json([asdict(one) for one in found])
        return
    said = ", ".join(f"{name} {spent:.3f}" for name, spent in stages.items())
    typer.echo(f"CPU seconds a film: {said} ({MEASURED_ON if measured is None else measured})")
    typer.echo(f"{films_per_day:g} films a day, {peak_share:.0%} of them in the busiest hour, at random")
    for one in found:
        name = f"{one.cores} cores" + (" and a GPU" if one.gpu else "")
        if one.utilisation < 1:
            waits = f"waits {one.mean_wait_s:.2f} s on the average, 99 % up to {one.p99_wait_s:.2f} s"
        else:
            waits = "more comes in the busiest hour than it can do"
        typer.echo(
            f"{name:>18}: {one.utilisation:.0%} busy ({one.limit}); {waits}; carries "
            f"{one.most_films_per_day:,.0f} films a day at {MOST_BUSY:.0%}; {one.machines} needed"
        )
