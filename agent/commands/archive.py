"""``archive``: studies of the archive are analysed as trials, and what was found is written out."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from firstread.agent.commands.common import (
    FAILED,
    REFUSED,
    WRONG_USE,
    ConfigOption,
    fail,
    harmless,
    opened,
    print_table,
    say,
)
from firstread.agent.commands.fetching import archive_of

if TYPE_CHECKING:
    from firstread.agent.archive_run import Progress
    from firstread.agent.store.engine import Store
    from firstread.agent.store.trials import Run, Wanted

app = typer.Typer(no_args_is_help=True, help="Studies of the archive as trials: analysed, and never reported.")

RunArgument = Annotated[int, typer.Argument(metavar="RUN", help="Number of the run, as `firstread archive runs` says.")]


@app.command()
def analyse(
    config: ConfigOption = None,
    date_from: Annotated[str, typer.Option("--from", metavar="YYYYMMDD", help="First study date.")] = "",
    date_until: Annotated[str, typer.Option("--to", metavar="YYYYMMDD", help="Last study date.")] = "",
    modality: Annotated[str, typer.Option(help="Modalities, with commas between them.")] = "CR,DX",
    body_part: Annotated[str, typer.Option(help="Body Part Examined; a study that says none is taken.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="So many studies at most.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Another model bundle than the usual one.")] = None,
    per_hour: Annotated[int, typer.Option(min=1, max=36000, help="So many requests an hour at most.")] = 240,
    most_waiting: Annotated[int, typer.Option(min=0, help="Wait while more films than this wait for analysis.")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run, and ask again for what failed.")] = False,
    run: Annotated[int | None, typer.Option(help="With --resume: which run; else the newest.")] = None,
) -> None:
    """Fetches studies from the archive and analyses them as trials: no result leaves, no priority is raised."""
    if resume and (date_from or date_until or limit or bundle or body_part):
        fail("--resume goes on with what the run was asked for: leave the other choices away", WRONG_USE)
    if not resume and (run is not None or not date_from or not date_until):
        fail("say which days: --from YYYYMMDD --to YYYYMMDD; or --resume", WRONG_USE)
    with opened(config) as (settings, store):
        from firstread.agent.archive_run import ArchiveRun, Pace, RunInProgress, RunStopped, alone, wait_for_results
        from firstread.agent.store.trials import Wanted

        archive = archive_of(settings, store)
        stopped = ""
        try:
            with alone(settings.spool), _progress() as tell:
                if resume:
                    one = _resumed(store, run)
                else:
                    names = tuple(dict.fromkeys(part.strip().upper() for part in modality.split(",") if part.strip()))
                    one = _begun(
                        store, Wanted(date_from, date_until, names, body_part.strip().upper(), limit, _bundle(bundle))
                    )
                work = ArchiveRun(
                    store, archive, one, Pace(per_hour, most_waiting), spool=settings.spool,
                    storage=settings.storage, tell=tell,
                )  # fmt: skip
                try:
                    work.work()
                    wait_for_results(store, one.id, tell)
                except RunStopped as error:
                    stopped = str(error)
                except KeyboardInterrupt:
                    stopped = "interrupted"
        except RunInProgress as error:
            fail(str(error), REFUSED)
        finally:
            archive.close()
        failed = _end(store, one)
    if stopped:
        fail(f"run {one.id} stopped: {stopped}. `firstread archive analyse --resume` goes on with it")
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def runs(config: ConfigOption = None) -> None:
    """The runs over the archive, newest first, and how far each is."""
    with opened(config) as (_, store), store.read() as connection:
        from firstread.agent.store import trials
        from firstread.agent.store.archive_tables import ArchiveState

        rows = []
        for one in trials.runs(connection):
            counts = trials.counts(connection, one.id)
            said = [f"{counts[state]} {state}" for state in ArchiveState if counts[state]]
            found = f"{trials.analysed(connection, one.id)} results"
            over = "over" if one.ended_at else "not over"
            rows.append([one.id, f"{one.created_at:%Y-%m-%d %H:%M}", _asked(one), over, ", ".join([*said, found])])
    print_table(["run", "began", "asked for", "is", "studies"], rows, "no run: `firstread archive analyse` begins one")


@app.command()
def results(run: RunArgument, config: ConfigOption = None) -> None:
    """What a run found, as CSV: a row for each image, and one for each study of which there is none."""
    with opened(config) as (_, store), store.read() as connection:
        from firstread.agent.store import trials
        from firstread.agent.trial_table import rows_of

        if trials.find(connection, run) is None:
            fail(f"there is no run {run}: `firstread archive runs` shows them")
        stream = io.StringIO()
        table = csv.writer(stream, lineterminator="\n")
        table.writerows([harmless(cell) for cell in row] for row in rows_of(connection, run))
    sys.stdout.write(stream.getvalue())


def _begun(store: Store, wanted: Wanted) -> Run:
    from firstread.agent import clock
    from firstread.agent.archive_run import days
    from firstread.agent.store import trials

    try:
        days(wanted.date_from, wanted.date_until)
    except ValueError as error:
        fail(str(error), WRONG_USE)
    with store.write() as connection:
        one = trials.begin(connection, wanted, clock.now())
    say(f"run {one.id}: {_asked(one)}", err=True)
    return one


def _resumed(store: Store, run: int | None) -> Run:
    from firstread.agent.store import trials

    with store.write() as connection:
        known = trials.runs(connection)
        one = next((one for one in known if run in (None, one.id)), None)
        if one is None:
            fail("there is no such run: `firstread archive runs` shows them")
        again = trials.resume(connection, one.id)
    say(f"run {one.id}: {_asked(one)}" + (f"; asks again for {again}" if again else ""), err=True)
    return one


def _bundle(name: str | None) -> str | None:
    """A bundle as the agent finds it too. The command ends with a sentence where it is none."""
    if name is None or name == "reference":
        return name
    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle

    try:
        load_bundle(bundle_folder(name))
    except BundleError as error:
        fail(str(error))
    return str(bundle_folder(name).absolute())


def _asked(run: Run) -> str:
    wanted = run.wanted
    said = [f"{wanted.date_from}-{wanted.date_until}", "/".join(wanted.modalities) or "any modality"]
    said += [wanted.body_part] if wanted.body_part else []
    said += [f"{wanted.most} at most"] if wanted.most else []
    said += [f"with {wanted.bundle}"] if wanted.bundle else []
    return ", ".join(said)


def _end(store: Store, run: Run) -> bool:
    """The table at the end; True when something of the run did not come."""
    from firstread.agent.store import trials
    from firstread.agent.store.archive_tables import ArchiveState

    with store.read() as connection:
        counts = trials.counts(connection, run.id)
        why: dict[str, int] = {}
        for uid, reason in trials.reasons(connection, run.id, ArchiveState.FAILED):
            words = reason.replace(uid, "...")
            why[words] = why.get(words, 0) + 1
        found, left = trials.analysed(connection, run.id), trials.unfinished(connection, run.id)
    rows: list[list[object]] = [
        ["fetched", counts[ArchiveState.FETCHED], ""],
        ["with a result", found, f"`firstread archive results {run.id}` writes them"],
        ["being analysed", left, "by the agent, where it runs"],
        ["here already", counts[ArchiveState.HERE], "really sent to us: left as they are"],
        ["skipped", counts[ArchiveState.SKIPPED], f"no series of {run.wanted.body_part}"],
        ["waiting", counts[ArchiveState.WAITING], "`firstread archive analyse --resume` fetches them"],
        *(["failed", count, words] for words, count in why.items()),
    ]
    print_table(
        ["studies", "count", ""], [row for row in rows if row[1]], f"run {run.id}: the archive has none of these"
    )
    return bool(counts[ArchiveState.FAILED])


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line for every tenth elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda told: bar.update(
            task, completed=told.done, total=told.total or None, description=harmless(told.words).replace("[", "(")
        )


class _Lines:
    """Says how far it is whenever a tenth more is done."""

    def __init__(self) -> None:
        self._said: tuple[int, int] | None = None

    def __call__(self, told: Progress) -> None:
        tenth = (10 * told.done // told.total if told.total else 0, told.total)
        if tenth != self._said:
            self._said = tenth
            say(f"{told.done} of {told.total}: {told.words}", err=True)
