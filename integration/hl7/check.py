"""Is this message what HL7 v2.5.1 asks for? Our own checks, and hl7apy's at STRICT.

hl7apy alone passes segments out of order, ``abc`` as a number, values that no table holds, a wrong MSH-18 and bare
line breaks, and its writer drops Z-segments; so the checks here look at exactly that. They know the segments that our
results and acknowledgements are made of, and leave what else a message holds to hl7apy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from firstread.integration.hl7.charset import codec_of
from firstread.integration.hl7.er7 import Message, Segment, read
from firstread.integration.hl7.errors import ERROR_TEXTS, UnreadableMessage
from firstread.integration.hl7.person import read_dtm
from firstread.integration.hl7.vocabulary import ordered_priority
from firstread.models.prediction import Priority

_STRUCTURES = {
    "ORU_R01": r"MSH (SFT )*PID (PD1 )?(NTE )*(NK1 )*(PV1 (PV2 )?)?"
    r"((ORC )?OBR (NTE )*(TQ1 (TQ2 )*)*(CTD )?(OBX (NTE )*)*(FT1 )*(CTI )*(SPM (OBX )*)*)+(DSC )?(Z\w\w )*",
    "ACK": r"MSH (SFT )*MSA (ERR )*(Z\w\w )*",
}

_TABLES: Mapping[str, frozenset[str]] = {
    "0001": frozenset("FMOUAN"),
    "0008": frozenset(("AA", "AE", "AR", "CA", "CE", "CR")),
    "0078": frozenset("L H LL HH < > N A AA U D B W S R I MS VS".split()),  # noqa: SIM905
    "0085": frozenset("CDFINOPRSUWX"),
    "0103": frozenset("DPT"),
    "0104": frozenset(("2.5.1",)),
    "0105": frozenset("LPO"),
    "0119": frozenset(("RE",)),
    "0123": frozenset("OIS A P C R F X Y Z".replace(" ", "")),
    "0125": frozenset("CE CWE DT ED FT NM RP SN ST TM TS TX".split()),  # noqa: SIM905
    "0357": frozenset(ERROR_TEXTS),
    "0516": frozenset("EFIW"),
}
"""The tables of the fields below, as far as 2.5.1 closes them."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_ESCAPE = re.compile(r"\\([FSTREHN]|X([0-9A-F]{2})+|\.(br|sp|in|ti|fi|nf|ce|sk)[^\\|]*|[CM][0-9A-F]{4,6})\\", re.I)


@dataclass(frozen=True)
class _Rule:
    """What a field may be: data type, most components, longest component, required, table, repeats."""

    kind: str
    required: bool = False
    table: str = ""
    longest: int = 199
    repeats: bool = False


_COMPONENTS = {"ST": 1, "ID": 1, "IS": 1, "SI": 1, "NM": 1, "TS": 1, "TX": 1, "FT": 1, "HD": 3, "EI": 4, "CE": 6}
_COMPONENTS |= {"CWE": 9, "CX": 10, "XPN": 14, "MSG": 3, "PT": 2, "VID": 3, "TQ": 12, "ERL": 6}

_RULES: Mapping[str, Mapping[int, _Rule]] = {
    "MSH": {
        3: _Rule("HD"),
        4: _Rule("HD"),
        5: _Rule("HD"),
        6: _Rule("HD"),
        7: _Rule("TS", required=True),
        9: _Rule("MSG", required=True),
        10: _Rule("ST", required=True, longest=20),
        11: _Rule("PT", required=True, table="0103"),
        12: _Rule("VID", required=True, table="0104"),
    },
    "PID": {
        1: _Rule("SI"),
        3: _Rule("CX", required=True, repeats=True),
        5: _Rule("XPN", required=True, repeats=True),
        7: _Rule("TS"),
        8: _Rule("IS", table="0001"),
    },
    "PV1": {2: _Rule("IS", required=True)},
    "ORC": {1: _Rule("ID", required=True, table="0119"), 2: _Rule("EI"), 3: _Rule("EI")},
    "OBR": {
        1: _Rule("SI"),
        2: _Rule("EI"),
        3: _Rule("EI"),
        4: _Rule("CE", required=True),
        5: _Rule("ID"),
        7: _Rule("TS", required=True),
        18: _Rule("ST"),
        19: _Rule("ST"),
        20: _Rule("ST"),
        21: _Rule("ST"),
        22: _Rule("TS", required=True),
        24: _Rule("ID", required=True),
        25: _Rule("ID", required=True, table="0123"),
        27: _Rule("TQ", repeats=True),
    },
    "TQ1": {1: _Rule("SI"), 9: _Rule("CWE", required=True, repeats=True)},
    "OBX": {
        1: _Rule("SI", required=True),
        2: _Rule("ID", required=True, table="0125"),
        3: _Rule("CE", required=True),
        6: _Rule("CE"),
        7: _Rule("ST"),
        8: _Rule("IS", table="0078", repeats=True),
        11: _Rule("ID", required=True, table="0085"),
        17: _Rule("CE", repeats=True),
    },
    "NTE": {
        1: _Rule("SI"),
        2: _Rule("ID", table="0105"),
        3: _Rule("FT", longest=65536, repeats=True),
        4: _Rule("CE"),
    },
    "MSA": {1: _Rule("ID", required=True, table="0008"), 2: _Rule("ST", required=True, longest=20), 3: _Rule("ST")},
    "ERR": {
        2: _Rule("ERL", repeats=True),
        3: _Rule("CWE", required=True, table="0357"),
        4: _Rule("ID", required=True, table="0516"),
        8: _Rule("TX", longest=250),
    },
}


def check_message(message: bytes, *, strict: bool = True) -> list[str]:
    """What is wrong with a result or an acknowledgement of ours, a sentence each; an empty list is a good message.

    ``strict``: hl7apy's validation at STRICT as well (some 0.1 s for a result; our own checks take a millisecond).
    The sentences name fields, never patient data.
    """
    problems = list(_bytes(message))
    try:
        taken = read(message)
    except UnreadableMessage as error:
        return [*problems, str(error)]
    for check in (_header, _structure, _fields, _escapes, _numbering, _values, _priorities):
        problems += check(taken)
    return problems + (_hl7apy(message) if strict else [])


def _bytes(message: bytes) -> Iterator[str]:
    if not message.endswith(b"\r"):
        yield "the last segment is not ended by CR"
    if b"\r\r" in message:
        yield "an empty segment"
    controls = sorted({byte for byte in message if byte < 0x20 and byte != 0x0D} | ({0x7F} & set(message)))
    if controls:
        yield f"control characters in the text: {', '.join(f'{byte:02X}' for byte in controls)}"


def _header(message: Message) -> Iterator[str]:
    msh = message.header
    if msh.field(2) != "^~\\&":
        yield "MSH-2 is not ^~\\&"
    code, structure = msh.value(9, 1), msh.value(9, 3)
    if structure not in _STRUCTURES or not structure.startswith(code):
        yield f"MSH-9.3 {structure!r} is none of {', '.join(_STRUCTURES)}, or another kind than MSH-9.1"
    names = [msh.value(18, 1, 1, n) for n in range(1, len(msh.repetitions(18)) + 1)]
    if not names or any(codec_of(name) is None for name in names) or "UTF-8" in names:
        yield "MSH-18 is not of table 0211 (UTF-8 is called UNICODE UTF-8 there)"
    elif message.remark:
        yield f"MSH-18: {message.remark}"


def _structure(message: Message) -> Iterator[str]:
    expected = _STRUCTURES.get(message.header.value(9, 3))
    order = "".join(f"{segment.name} " for segment in message.segments)
    if expected and not re.fullmatch(expected, order):
        yield f"the order of segments is not that of {message.header.value(9, 3)}: {order.strip()}"


def _fields(message: Message) -> Iterator[str]:
    for segment in message.segments:
        for number, rule in _RULES.get(segment.name, {}).items():
            if not segment.field(number):
                if rule.required:
                    yield f"{segment.at(number)} is required and empty"
                continue
            repetitions = segment.repetitions(number)
            if len(repetitions) > 1 and not rule.repeats:
                yield f"{segment.at(number)} repeats and may not"
            for repetition in range(1, len(repetitions) + 1):
                yield from (f"{segment.at(number)} {what}" for what in _field(segment, number, repetition, rule))


def _field(segment: Segment, number: int, repetition: int, rule: _Rule) -> Iterator[str]:
    parts = segment.parts(number, repetition)
    if len(parts) > _COMPONENTS[rule.kind]:
        yield f"has {len(parts)} components, {rule.kind} at most {_COMPONENTS[rule.kind]}"
    if any(len(part) > rule.longest for part in parts):
        yield f"is longer than {rule.longest} characters"
    value = segment.value(number, 1, 1, repetition)
    if rule.table and value not in _TABLES[rule.table]:
        yield f"is not of table {rule.table}"
    told = _TYPE_CHECKS.get(rule.kind)
    if told:
        yield from told(segment, number, repetition)


def _is_number(segment: Segment, number: int, repetition: int) -> Iterator[str]:
    if not _NUMBER.fullmatch(segment.value(number, 1, 1, repetition)):
        yield "is not a number"


def _is_count(segment: Segment, number: int, repetition: int) -> Iterator[str]:
    if not re.fullmatch(r"[0-9]{1,4}", segment.value(number, 1, 1, repetition)):
        yield "is not a count"


def _is_time(segment: Segment, number: int, repetition: int) -> Iterator[str]:
    if read_dtm(segment.value(number, 1, 1, repetition)) is None:
        yield "is not a time"


def _is_coded(segment: Segment, number: int, repetition: int) -> Iterator[str]:
    """CE and CWE: a code says whose it is, in each of its two spellings; a text may stand alone (2.A.13)."""
    for identifier in (1, 4):
        code, scheme = (segment.value(number, part, 1, repetition) for part in (identifier, identifier + 2))
        if scheme and not code:
            yield "names a coding system without a code"
        if code and not scheme and (segment.name, number) in (("OBX", 3), ("OBX", 5), ("OBX", 6), ("OBX", 17)):
            yield "holds a code without its coding system"
    if not any(segment.value(number, part, 1, repetition) for part in (1, 2, 9)):
        yield "holds neither code nor text"


def _is_identifier(segment: Segment, number: int, repetition: int) -> Iterator[str]:
    if not segment.value(number, 1, 1, repetition):
        yield "holds no identifier"
    if not segment.value(number, 5, 1, repetition):
        yield "does not say what type of identifier it is"


_TypeCheck = Callable[[Segment, int, int], Iterator[str]]
_TYPE_CHECKS: Mapping[str, _TypeCheck] = {
    "NM": _is_number,
    "SI": _is_count,
    "TS": _is_time,
    "CE": _is_coded,
    "CWE": _is_coded,
    "CX": _is_identifier,
}


def _escapes(message: Message) -> Iterator[str]:
    for segment in message.segments:
        for number, text in enumerate(segment.fields):
            if "\\" in _ESCAPE.sub("", text) and (segment.name, number) != ("MSH", 2):
                yield f"{segment.at(number)} holds an escape character that begins no escape sequence"


def _numbering(message: Message) -> Iterator[str]:
    """OBR-1 counts through the message, OBX-1 within its OBR, NTE-1 and TQ1-1 within what they stand under."""
    counts = {"OBR": 0, "OBX": 0, "NTE": 0, "TQ1": 0}
    restarts = {"OBR": ("OBX", "NTE", "TQ1"), "OBX": ("NTE",), "PID": ("NTE",)}
    for segment in message.segments:
        for name in restarts.get(segment.name, ()):
            counts[name] = 0
        if segment.name in counts:
            counts[segment.name] += 1
            if segment.value(1) != str(counts[segment.name]):
                yield f"{segment.at(1)} is not {counts[segment.name]}"


def _values(message: Message) -> Iterator[str]:
    """OBX-5 by OBX-2, and its company: nothing in it where OBX-11 says X, units and H only with numbers."""
    for obx in message.all("OBX"):
        kind, status = obx.value(2), obx.value(11)
        if (status == "X") != (not obx.field(5)):
            yield f"{obx.at(5)} is filled though not obtained, or empty though obtained"
        if kind != "NM" and (obx.field(6) or "H" in obx.repetitions(8)):
            yield f"{obx.at(2)} is no number, yet it has units or the flag H"
        if kind == "NM" and obx.field(5) and len(obx.repetitions(5)) > 1:
            yield f"{obx.at(5)} repeats and may not"
        rule = _Rule(kind if kind in _COMPONENTS else "ST", repeats=True)
        for repetition in range(1, len(obx.repetitions(5)) + 1):
            yield from (f"{obx.at(5)} {what}" for what in _field(obx, 5, repetition, rule))


def _priorities(message: Message) -> Iterator[str]:
    """The house's own rule: a priority field that says routine would lower an order that we know nothing of."""
    said = [(tq1.at(9), tq1.value(9)) for tq1 in message.all("TQ1")]
    said += [
        (obr.at(number), obr.value(number, part)) for obr in message.all("OBR") for number, part in ((5, 1), (27, 6))
    ]
    for place, value in said:
        if value and ordered_priority(value) is Priority.ROUTINE:
            yield f"{place} says routine: leave it empty"


def _hl7apy(message: bytes) -> list[str]:
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException, ValidationError
    from hl7apy.parser import parse_message

    text = message.decode(codec_of(read(message).header.value(18)) or "utf-8", errors="replace")
    try:
        parsed = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
        parsed.validate()
    except ValidationError as error:
        return [f"hl7apy: {error}"]
    except (HL7apyException, ValueError, IndexError, KeyError, AttributeError) as error:
        return [f"hl7apy: {type(error).__name__}"]  # its words would quote the value
    return []
