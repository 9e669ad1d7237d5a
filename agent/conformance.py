"""The tables of docs/dicom-conformance.md from the code: ``python -m firstread.agent.conformance PAGE`` writes them.

The page's words are written by hand; what stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` comes from here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydicom._uid_dict import UID_dictionary
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID

from firstread import __version__
from firstread.agent.commitment import GIVE_UP_H, SAME_ASSOCIATION_S
from firstread.agent.commitment_asking import AGAIN_FIRST_S, AGAIN_MOST_S
from firstread.agent.config import DicomDestination, DicomSettings, DicomwebDestination, PeerSettings
from firstread.agent.config_sections import Section
from firstread.agent.decompress import REVERSIBLE
from firstread.agent.querying import MOST_MATCHES, MOST_OBJECTS
from firstread.agent.store.holdings_search import ATTRIBUTES, Kind, Level
from firstread.agent.web.access import ACCESS
from firstread.integration.audit.message import EventKind
from firstread.integration.dicom import (
    admission,
    commitment_scp,
    contexts,
    query,
    query_scp,
    retrieve_contexts,
    status,
    suboperations,
)
from firstread.integration.dicom.commitment import FailureReason
from firstread.integration.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from firstread.integration.dicom.report import concepts
from firstread.integration.dicom.send import OUR_RESULTS
from firstread.integration.dicom.streaming import LARGEST_OTHER_DATA_SET
from firstread.models.findings import FINDINGS, Code

_MARKED = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * lines[0].count(" | ") + "---|")
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _named(uid: str) -> tuple[str, str]:
    return UID(uid).name, f"`{uid}`"


def _first_line(thing: object) -> str:
    """What a docstring says, without the code that it may begin with."""
    return re.sub(r"^[0-9A-F]{4}: ", "", (thing.__doc__ or "").strip().splitlines()[0])


def _implementation() -> str:
    return table(
        ("", ""),
        [
            ("Product, version", f"Firstread {__version__}"),
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
            ("Application Context Name", "`1.2.840.10008.3.1.1.1`"),
        ],
    )


def _services() -> str:
    both = {contexts.VERIFICATION: ("yes", "yes"), contexts.STORAGE_COMMITMENT: ("yes", "yes")}
    rows = [(*_named(uid), *roles) for uid, roles in both.items()]
    find, move, get = contexts.STUDY_ROOT_FIND, contexts.STUDY_ROOT_MOVE, contexts.STUDY_ROOT_GET
    rows += [(*_named(uid), "yes", "yes") for uid in (find, move, get)]
    sent = list(dict.fromkeys(uid for uid, _ in OUR_RESULTS))
    rows += [(*_named(uid), "yes", "yes") for uid in sent]
    rows.append(("Storage classes, listed at the end", "", "C-MOVE and C-GET only", "yes"))
    return table(("SOP class", "UID", "SCU", "SCP"), rows)


def _storage_classes() -> str:
    known = [uid for uid in UID_dictionary if contexts.is_storage_class(uid)]
    return table(("SOP class", "UID"), (_named(uid) for uid in sorted(known, key=lambda uid: UID(uid).name)))


def _transfer_syntaxes() -> str:
    kinds = dict.fromkeys(contexts.NATIVE, "native") | dict.fromkeys(contexts.LOSSLESS, "lossless")
    rows = [
        (number, *_named(uid), kinds.get(uid, "may be lossy"))
        for number, uid in enumerate(contexts.TRANSFER_SYNTAXES, 1)
    ]
    return table(("preference", "transfer syntax", "UID", "kind"), rows)


def _proposed() -> str:
    rows = [(*_named(sop_class), _named(syntax)[0], "SCU") for sop_class, syntax in OUR_RESULTS]
    rows += [
        (*_named(contexts.STORAGE_COMMITMENT), UID(uid).name, "SCU; SCP to report") for uid in suboperations.NATIVE[:2]
    ]
    rows += [(*_named(contexts.VERIFICATION), UID(uid).name, "SCU") for uid in reversed(suboperations.NATIVE[:2])]
    models = (contexts.STUDY_ROOT_FIND, contexts.STUDY_ROOT_GET, contexts.STUDY_ROOT_MOVE)
    rows += [(*_named(uid), "explicit and implicit VR little endian", "SCU") for uid in models]
    names = ", ".join(UID(uid).name for uid in retrieve_contexts.SYNTAXES)
    rows += [(*_named(uid), names, "SCP (C-GET)") for uid in retrieve_contexts.FILMS]
    native = "explicit and implicit VR little endian"
    rows += [(*_named(uid), native, "SCP (C-GET)") for uid in retrieve_contexts.BESIDE]
    rows.append(("any stored class (C-MOVE)", "", "as stored, and the two native little endian ones", "SCU"))
    return table(("SOP class", "UID", "transfer syntax", "role"), rows)


def _rejections() -> str:
    rules = admission.Rules(
        "FIRSTREAD", allowed_calling_ae=("KNOWN",), allowed_addresses=("10.0.0.1",), maximum_associations=2,
        maximum_per_calling_ae=1,
    )  # fmt: skip
    usual = {"calling_ae_title": "KNOWN", "called_ae_title": "FIRSTREAD", "address": "10.0.0.1"}
    cases: list[tuple[str, dict[str, str], int, int, str | None]] = [
        ("address not among the allowed ones", {"address": "10.0.0.2"}, 0, 0, None),
        ("called AE title is not ours", {"called_ae_title": "OTHER"}, 0, 0, None),
        ("calling AE title is not among the allowed ones", {"calling_ae_title": "OTHER"}, 0, 0, None),
        ("disk below its reserve, too many films wait, stopping", {}, 0, 0, "closed"),
        ("too many associations, of all or of this sender", {}, 1, 1, None),
    ]
    rows = []
    for words, other, active, of_sender, closed in cases:
        rejection = admission.decide(
            rules, **(usual | other), active=active, active_of_calling_ae=of_sender, closed_because=closed
        )
        assert rejection is not None
        kind = "permanent" if rejection.result == admission.PERMANENT else "transient"
        rows.append((words, f"{rejection.result} {kind}", rejection.source, rejection.reason))
    return table(("why", "result", "source", "reason"), rows)


def _store_answers() -> str:
    rows = [("0000", "Success", "the instance is on the disk, synced, and its row is committed")]
    rows += [(f"{one.code:04X}", one.__name__, _first_line(one)) for one in status.StoreFailure.__subclasses__()]
    return table(("status", "name", "when"), rows)


def _store_heard() -> str:
    words = {
        status.OutcomeKind.DELIVERED: "delivered, a warning is kept; with `commit = true` stored, and asked about",
        status.OutcomeKind.RETRY: "sent again, later",
        status.OutcomeKind.REJECTED: "a refusal: sent again a few times, then rejected with an alarm",
    }
    codes = sorted({*status.STATUS_MEANINGS, 0xA700, 0xA900, 0xC000})
    return table(
        ("status", "meaning", "what happens"),
        ((f"{code:04X}", status.meaning_of(code), words[status.outcome_of(code)]) for code in codes),
    )


def _failure_reasons() -> str:
    when = {
        FailureReason.PROCESSING_FAILURE: "its file is there and has another size or hash, or cannot be read",
        FailureReason.NO_SUCH_OBJECT_INSTANCE: "never received, its days are over, or its file is missing",
        FailureReason.CLASS_INSTANCE_CONFLICT: "held under another SOP class",
        FailureReason.SOP_CLASS_NOT_SUPPORTED: "unknown, and of a class that is no storage class",
        FailureReason.DUPLICATE_TRANSACTION_UID: "understood as SCU, not sent as SCP",
        FailureReason.RESOURCE_LIMITATION: "understood as SCU, not sent as SCP",
    }
    return table(("reason", "name", "when"), ((f"{one:04X}", one.name, when[one]) for one in FailureReason))


def _commitment_answers() -> str:
    one = commitment_scp
    rows = [
        (one.SUCCESS, "both", "kept durably"),
        (one.PROCESSING_FAILURE, "both", "unexpected error; N-EVENT-REPORT: a transaction that is not ours"),
        (one.NO_SUCH_INSTANCE, "N-ACTION", "another instance than the well-known one"),
        (one.NO_SUCH_EVENT, "N-EVENT-REPORT", "an event type other than 1 and 2"),
        (one.INVALID_ARGUMENT, "both", "the data set names no transaction or no instance, or cannot be read"),
        (one.NO_SUCH_ACTION, "N-ACTION", "an action type other than 1"),
        (one.NOT_AUTHORISED, "N-ACTION", "the Transaction UID was used for other instances"),
        (one.RESOURCE_LIMITATION, "both", "the database is busy: again, later"),
    ]
    return table(("status", "answer to", "when"), ((f"{code:04X}", message, when) for code, message, when in rows))


def _commitment_times() -> str:
    rows = [
        ("report waits for the association that asked", f"{SAME_ASSOCIATION_S:g} s"),
        ("report is repeated for", f"{GIVE_UP_H:g} h"),
        ("we ask again after (doubling)", f"{AGAIN_FIRST_S:g} s to {AGAIN_MOST_S:g} s"),
    ]
    return table(("what", "time"), rows)


_LEVELS = {Level.STUDY: "STUDY", Level.SERIES: "SERIES", Level.INSTANCE: "IMAGE"}
_UNIQUE = set(query.UNIQUE_KEYS.values())


def _keys() -> str:
    rows = []
    for one in ATTRIBUTES.values():
        last = tag_for_keyword(one.keyword.rpartition(".")[2]) or 0
        if one.keyword in query.NO_KEYS:
            continue
        kind = "unique key" if one.keyword in _UNIQUE else one.kind.value.partition("; fuzzy")[0]
        tag = f"({last >> 16:04X},{last & 0xFFFF:04X})"
        rows.append((_LEVELS[one.level], one.keyword.replace(".", " > "), tag, kind))
    rows += [("all", keyword, "", Kind.COUNTED.value) for keyword in ("RetrieveAETitle", "InstanceAvailability")]
    return table(("level", "attribute", "tag", "matching"), rows)


def _query_answers() -> str:
    kinds: list[type[query.QueryFailure]] = [query.QueryFailure, *query.QueryFailure.__subclasses__()]
    failures = {one.code: _first_line(one) for one in kinds}
    rows: list[tuple[int, str, str]] = [
        (query_scp.PENDING, "C-FIND; C-MOVE, C-GET", "a match; a sub-operation has ended, with the counts"),
        (query_scp.PENDING_KEYS_UNKNOWN, "C-FIND", "a match; a key that was asked for is not known"),
        (query_scp.SUCCESS, "all", "complete"),
        (query_scp.CANCELLED, "all", "cancelled by C-CANCEL"),
        (query_scp.DESTINATION_UNKNOWN, "C-MOVE", "the move destination is not named in the settings"),
        (query_scp.UNABLE_TO_SEND, "C-MOVE, C-GET", "no sub-operation succeeded; each failed instance is listed"),
        (_some_failed(), "C-MOVE, C-GET", "some failed or had warnings; each failed instance is listed"),
    ]
    rows += [(code, "all", words) for code, words in failures.items()]
    return table(("status", "service", "when"), ((f"{code:04X}", of, when) for code, of, when in sorted(rows)))


def _some_failed() -> int:
    counts = suboperations.Counts(0, completed=1, failed_uids=["1.2.3"])
    return counts.final_status(cancelled=False)


def _limits() -> str:
    rows = [
        ("matches of one query", MOST_MATCHES),
        ("instances of one retrieval", MOST_OBJECTS),
        ("bytes of a data set that comes with another command than C-STORE", LARGEST_OTHER_DATA_SET),
        ("photometric interpretations that are decompressed", ", ".join(REVERSIBLE)),
    ]
    return table(("what", "at most"), rows)


def _character_sets() -> str:
    names = [name for name in python_encoding if name.startswith(("ISO", "GB"))]
    return ", ".join(f"`{name}`" for name in names) + "\n"


def _audit() -> str:
    return table(("event", "code", "action"), ((one.value[1], one.value[0], one.value[2]) for one in EventKind))


def _web() -> str:
    rows = [(method, f"`{path}`") for method, path in ACCESS if path.startswith("/dicom-web")]
    return table(("method", "address"), rows) if rows else "None.\n"


def _settings(model: type[Section], skip: Iterable[str] = ()) -> Iterable[tuple[str, object, str]]:
    for name, one in model.model_fields.items():
        if name not in skip:
            default = "must be given" if one.is_required() else "" if one.default is None else one.default
            yield f"`{name}`", f"{default!s}" if not isinstance(default, tuple) else "", str(one.description)


def _configuration() -> str:
    skip = ("retry", "type")
    return "\n".join(
        f"`{name}`\n\n" + table(("parameter", "default", "what"), _settings(model, skip))
        for name, model in (
            ("[dicom]", DicomSettings), ("[[destinations]]", DicomDestination),
            ("[[destinations]] of type dicomweb", DicomwebDestination), ("[[peers]]", PeerSettings),
        )
    )  # fmt: skip


def _codes(codes: Iterable[Code]) -> str:
    return table(("value", "scheme", "meaning"), ((f"`{one.value}`", one.scheme, one.meaning) for one in codes))


def _concepts() -> str:
    return _codes(one for one in vars(concepts).values() if isinstance(one, Code))


TABLES: Mapping[str, Callable[[], str]] = {
    "implementation": _implementation,
    "services": _services,
    "storage-classes": _storage_classes,
    "transfer-syntaxes": _transfer_syntaxes,
    "proposed": _proposed,
    "rejections": _rejections,
    "store-answers": _store_answers,
    "store-heard": _store_heard,
    "failure-reasons": _failure_reasons,
    "commitment-answers": _commitment_answers,
    "commitment-times": _commitment_times,
    "keys": _keys,
    "query-answers": _query_answers,
    "limits": _limits,
    "character-sets": _character_sets,
    "audit": _audit,
    "web": _web,
    "configuration": _configuration,
    "concepts": _concepts,
    "findings": lambda: _codes(one.code for one in FINDINGS),
}


def filled(page: str) -> str:
    """The page with every table as the code has it now. Raises ``KeyError`` for a table that nobody makes."""
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", page)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
