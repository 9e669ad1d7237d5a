"""``studies``, ``study``, ``oru``, ``sr``, ``replay``: what became of what was sent, and doing it once more."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from firstread.agent.commands.common import (
    FAILED,
    WRONG_USE,
    ConfigOption,
    JsonOption,
    LimitOption,
    fail,
    opened,
    print_json,
    print_table,
    say,
)
from firstread.agent.commands.fetching import fetch_purged


class From(enum.StrEnum):
    """Where a replay begins."""

    ANALYSE = "analyse"
    DELIVER = "deliver"


DateOption = Annotated[str, typer.Option(metavar="YYYYMMDD", help="Received on or after this day.")]
UntilOption = Annotated[str, typer.Option(metavar="YYYYMMDD", help="Received on or before this day.")]
StateOption = Annotated[str, typer.Option(help="receiving, analysed or not_analysed.")]


def _day(value: str, option: str) -> datetime | None:
    if not value:
        return None
    try:
        return datetime.strptime(value.replace("-", ""), "%Y%m%d").astimezone().astimezone(UTC)
    except ValueError:
        fail(f"{option} {value!r} is not a day: write YYYYMMDD", WRONG_USE)


def _wanted(
    study: str, accession: str, patient_id: str, state: str, since: str, until: str, station: str, model: str
) -> Any:
    from firstread.agent.store.studies import StudyFilter
    from firstread.agent.store.tables import StudyState

    if state and state not in set(StudyState):
        fail(f"--state {state!r} is unknown: use {', '.join(StudyState)}", WRONG_USE)
    end = _day(until, "--until")
    return StudyFilter(
        study_instance_uid=study,
        accession_number=accession,
        patient_id=patient_id,
        state=state,
        received_from=_day(since, "--since"),
        received_until=end and end + timedelta(days=1),
        station=station,
        model_version=model,
    )


def list_studies(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    state: StateOption = "",
    since: DateOption = "",
    until: UntilOption = "",
    accession: Annotated[str, typer.Option(help="Accession number.")] = "",
    patient_id: Annotated[str, typer.Option(help="Patient identifier.")] = "",
    limit: LimitOption = 100,
) -> None:
    """The studies, newest first: state, priority and why, what was delivered."""
    with opened(config) as (_, store):
        from firstread.agent.listing import study_objects
        from firstread.agent.store import studies

        wanted = _wanted("", accession, patient_id, state, since, until, "", "")
        with store.read() as connection:
            found = study_objects(connection, studies.selected(connection, wanted, limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ["received", "accession", "state", "rev", "priority", "why", "deliveries", "study"],
        [
            [
                one["received_at"][:19].replace("T", " "),
                one["accession_number"],
                one["state"] + (f", trial of run {one['trial_run']}" if one["trial_run"] else ""),
                one["revision"],
                one["result"] and one["result"]["priority"],
                one["result"] and (one["result"]["reason"] or one["result"]["priority_reason"]),
                ", ".join(f"{count} {name}" for name, count in one["deliveries"].items()),
                one["study_instance_uid"],
            ]
            for one in found
        ],
        "no studies: nothing was received yet, or the filter leaves none",
    )


def one_study(connection: Any, name: str) -> Any:
    """The row of a study by its UID or accession number; the command ends with a sentence when there is none."""
    from firstread.agent.store import studies
    from firstread.agent.store.studies import StudyFilter

    row = studies.find(connection, name)
    if row is not None:
        return row
    by_accession = studies.selected(connection, StudyFilter(accession_number=name), 2)
    if len(by_accession) > 1:
        fail(f"several studies have accession number {name}: give the Study Instance UID", WRONG_USE)
    if not by_accession:
        fail(f"no study {name}: give a Study Instance UID or an accession number as `firstread studies` shows it")
    return by_accession[0]


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID or accession number.")]


def show_study(study: StudyArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """One study: its images, every revision, every delivery, and its whole trail."""
    with opened(config) as (_, store), store.read() as connection:
        from firstread.agent.listing import trail_object

        found = trail_object(connection, one_study(connection, study))
    if as_json:
        print_json(found)
        return
    say(f"study     {found['study_instance_uid']}")
    say(f"accession {found['accession_number']}   patient {found['patient_id']}   state {found['state']}")
    if found["trial_run"]:
        say(f"trial     of run {found['trial_run']}: `firstread archive results` says what it found")
    for one in found["revisions"]:
        said = (one["reason"] and f"not analysed: {one['reason']}") or one["priority_reason"]
        sent = "" if one["sent"] else " (nothing new, not sent)"
        say(f"\nrevision {one['revision']}  {one['priority']}  {said}  [{one['cause']}]{sent}")
        for note in one["notes"]:
            say(f"  note: {note}")
        for finding in one["findings"]:
            probability = "not assessed" if finding["probability"] is None else f"{finding['probability']:.3f}"
            mark = "above" if finding["present"] else ""
            extra = " experimental" if finding["experimental"] else ""
            say(f"  {finding['label']:<20}{probability:>13}  {mark}{extra}")
    say("")
    print_table(
        ["image", "state", "reason", "file"],
        [
            [i["sop_instance_uid"], i["state"], i["reason"], i["path"] or "deleted, its days were over"]
            for i in found["image_list"]
        ],
        "no images",
    )
    say("")
    _print_deliveries(found["delivery_list"])
    say("")
    print_table(
        ["when", "what", "who", "detail"],
        [
            [e["at"][:23].replace("T", " "), e["what"], e["who"], ", ".join(f"{k}={v}" for k, v in e["detail"].items())]
            for e in found["trail"]
        ],
        "no trail",
    )


def _print_deliveries(rows: list[dict[str, Any]]) -> None:
    print_table(
        ["id", "destination", "what", "rev", "state", "tries", "status", "detail", "identity"],
        [
            [
                d["id"],
                d["destination"],
                d["kind"],
                d["revision"],
                d["state"],
                d["attempts"],
                d["status"],
                d["detail"],
                d["identity"],
            ]
            for d in rows
        ],
        "no deliveries",
    )


def show_oru(
    study: StudyArgument,
    config: ConfigOption = None,
    to: Annotated[str, typer.Option(help="Of which HL7 destination.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and check it from the newest result.")] = False,
) -> None:
    """The ORU message of a study: as it was frozen, or with --dry-run as it would be built now."""
    with opened(config) as (settings, store):
        from firstread.agent import messages_shown

        with store.read() as connection:
            row = one_study(connection, study)
        try:
            shown = messages_shown.oru(settings, store, row, to, build=dry_run)
        except LookupError as error:
            fail(str(error.args[0]))
    say(shown)


def show_sr(
    study: StudyArgument,
    config: ConfigOption = None,
    dump: Annotated[bool, typer.Option("--dump", help="Print its content as text.")] = False,
) -> None:
    """The Structured Report of a study: where its file lies, or with --dump what it says."""
    with opened(config) as (settings, store):
        from firstread.agent import messages_shown

        with store.read() as connection:
            row = one_study(connection, study)
        try:
            say(messages_shown.sr(settings, store, row, dump=dump))
        except LookupError as error:
            fail(str(error.args[0]))


def replay(
    study: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="UIDs or accession numbers.")] = None,
    config: ConfigOption = None,
    begin: Annotated[From, typer.Option("--from", help="analyse: a new revision; deliver: the frozen bytes again.")] = (
        From.ANALYSE
    ),
    to: Annotated[str | None, typer.Option(metavar="DESTINATION", help="With --from deliver: only there.")] = None,
    bundle: Annotated[str | None, typer.Option(help="With --from analyse: another model bundle.")] = None,
    accession: Annotated[str, typer.Option(help="Accession number.")] = "",
    state: StateOption = "",
    since: DateOption = "",
    until: UntilOption = "",
    model: Annotated[str, typer.Option(help="Whose newest result is of this model version.")] = "",
    station: Annotated[str, typer.Option(help="Station name of the films.")] = "",
    why: Annotated[str, typer.Option(help="Reason, written into trail and report.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the difference it would make; change nothing.")] = (
        False
    ),
    as_json: JsonOption = False,
    limit: LimitOption = 1000,
) -> None:
    """Analyse studies once more, or send their results once more."""
    if not (study or accession or state or since or until or model or station):
        fail("say which studies: STUDY, --accession, --state, --since, --until, --model or --station", WRONG_USE)
    if begin is From.DELIVER and bundle:
        fail("--bundle goes with --from analyse: frozen bytes are not analysed again", WRONG_USE)
    if begin is From.ANALYSE and to:
        fail("--to goes with --from deliver: a new revision goes to every destination", WRONG_USE)
    with opened(config) as (settings, store):
        from firstread.agent import replay as replays
        from firstread.agent.models_at_hand import bundle_folder
        from firstread.models.bundle import BundleError, load_bundle

        if to is not None and settings.destination(to) is None:
            names = ", ".join(one.name for one in settings.all_destinations)
            fail(f"no destination {to!r}: the settings name {names or 'none'}", WRONG_USE)
        if bundle is not None:
            try:
                load_bundle(bundle_folder(bundle))
            except BundleError as error:
                fail(str(error))
            # The agent runs elsewhere: it gets a path that means the same there.
            bundle = bundle if bundle == "reference" else str(bundle_folder(bundle).absolute())
        if study:
            with store.read() as connection:
                rows = [one_study(connection, name) for name in study]
        else:
            rows = replays.select(store, _wanted("", accession, "", state, since, until, station, model), limit)
        if begin is From.DELIVER:
            done = list(replays.deliver_again(settings, store, rows, to, dry_run=dry_run))
        elif dry_run:
            done = list(replays.preview(settings, store, rows, bundle))
        else:
            if settings.archive.named:
                fetch_purged(settings, store, rows)
            done = list(replays.analyse_again(store, rows, bundle=bundle, why=why))
    if as_json:
        print_json([one.__dict__ for one in done])
    else:
        for one in done:
            say(f"{one.study_instance_uid} {one.accession_number}")
            for words in one.words:
                say(f"  {words}")
        if not done:
            say("no study is meant by that")
    if any(not one.done for one in done):
        raise typer.Exit(FAILED)
