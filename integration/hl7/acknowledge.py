"""Acknowledgements: writing them for what came in, judging them for what went out (HL7 v2.5.1 2.9.2, table 0357)."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from firstread.integration.hl7.er7 import Message, compose, field, header, read, segment
from firstread.integration.hl7.errors import ERROR_TEXTS, UnreadableMessage
from firstread.integration.hl7.escape import escape, pieces
from firstread.integration.hl7.person import dtm


class AckKind(enum.StrEnum):
    """What an answer means for the message it is about."""

    DELIVERED = "delivered"
    """The receiver said yes."""
    RETRY = "retry"
    """Not now: the same message again later."""
    REJECTED = "rejected"
    """Never: the fault is in the message, sending it again helps nobody."""
    REJECT_AFTER_TRIES = "reject_after_tries"
    """Probably never: three tries, then rejected."""
    NOT_OURS = "not_ours"
    """The answer is about another message, or about none."""


@dataclass(frozen=True)
class AckOutcome:
    """What came of one sending. ``code``: MSA-1, ``err_code``: ERR-3, both empty when nothing was answered.

    ``text``: a sentence for the person who looks after the interface; the receiver's own words are in it.
    """

    kind: AckKind
    code: str = ""
    err_code: str = ""
    text: str = ""

    @property
    def delivered(self) -> bool:
        """True when the receiver's own answer said so."""
        return self.kind is AckKind.DELIVERED


JUDGEMENTS: Mapping[str, AckKind] = MappingProxyType(
    {
        "AA": AckKind.DELIVERED,
        "CA": AckKind.DELIVERED,
        "AR": AckKind.RETRY,
        "CE": AckKind.RETRY,
        "AE": AckKind.REJECT_AFTER_TRIES,
        "CR": AckKind.REJECT_AFTER_TRIES,
        **dict.fromkeys(("100", "101", "102", "103", "200", "201", "202", "203"), AckKind.REJECTED),
        "204": AckKind.RETRY,
        "205": AckKind.REJECTED,
        "206": AckKind.RETRY,
        "207": AckKind.RETRY,
    }
)
"""MSA-1 codes and ERR-3 codes (table 0357) to what they mean; the second decide where they are there.

204, unknown key: the emergency film that is done before its order is entered. The order comes, so later is worth a try.
205, duplicate key: the receiver holds something under this key and will say so every time; a person must look.
"""


def acknowledge(request: bytes, code: str = "AA", error: UnreadableMessage | None = None) -> bytes:
    """The answer to ``request``: its MSH turned round, its MSH-10 in MSA-2, and an ERR where ``error`` is given.

    ``code``: AA, AE or AR. A sender that asked for an accept acknowledgement alone (MSH-15 set, MSH-16 empty or NE,
    2.9.3) gets CA, CE or CR. A request without a readable header is answered with what is known: an empty MSA-2.
    """
    try:
        asked: Message | None = read(request)
    except UnreadableMessage:
        asked = _header_alone(request)
    values = {number: _swapped(asked, number) for number in (3, 4, 5, 6)}
    trigger = asked.header.value(9, 2) if asked else ""
    if asked and asked.header.value(15) not in ("", "NE") and asked.header.value(16) in ("", "NE"):
        code = "C" + code[1:]
    control_id = asked.header.value(10) if asked else ""
    sentence = error.sentence if error else ""
    lines = [
        header(
            {
                3: values[5],
                4: values[6],
                5: values[3],
                6: values[4],
                7: dtm(datetime.now(UTC)),
                9: field("ACK", trigger, "ACK"),
                10: "A" + uuid.uuid4().hex[:19],
                11: escape(asked.header.value(11) if asked else "") or "P",
                12: escape(asked.header.value(12) if asked else "") or "2.5.1",
                18: "UNICODE UTF-8",
            }
        ),
        segment("MSA", {1: code, 2: escape(control_id), 3: escape((pieces(sentence, 80) or [""])[0].strip())}),
    ]
    if error:
        lines.append(_err(error))
    return "".join(line + "\r" for line in lines).encode()


def _header_alone(request: bytes) -> Message | None:
    """The header of a message whose rest cannot be read, so that its sender knows which one is meant."""
    start = request.find(b"MSH")
    if start < 0 or request[:start].strip(b"\r\n\x00 \x0b\xef\xbb\xbf"):
        return None
    try:
        return read(re.split(rb"[\r\n]", request[start:], maxsplit=1)[0])
    except UnreadableMessage:
        return None


def _swapped(asked: Message | None, number: int) -> str:
    if asked is None:
        return ""
    return field(*(asked.header.value(number, part) for part in (1, 2, 3)))


def _err(error: UnreadableMessage) -> str:
    at = error.location
    place = [at.segment, str(at.sequence), *(str(n) for n in (at.field, at.field and 1, at.component) if n)]
    condition = field(str(error.code), ERROR_TEXTS.get(str(error.code), ""), "HL70357")
    user_text = (pieces(error.sentence, 250) or [""])[0].strip()
    return segment(
        "ERR", {2: compose(*map(escape, place)) if at.segment else "", 3: condition, 4: "E", 8: escape(user_text)}
    )


def read_acknowledgement(
    answer: bytes, expected_control_id: str, judgements: Mapping[str, AckKind] | None = None
) -> AckOutcome:
    """What ``answer`` says of the message with MSH-10 ``expected_control_id``.

    An answer whose MSA-2 is not that id, or that is no acknowledgement, is ``NOT_OURS``, whatever its code.
    ``judgements``: a destination's own meanings of MSA-1 or ERR-3 codes (``{"AE": RETRY}``), asked before ours.
    """
    try:
        message = read(answer)
    except UnreadableMessage as error:
        return AckOutcome(AckKind.NOT_OURS, text=f"the answer is no HL7 message: {error.sentence}")
    msa = message.first("MSA")
    if msa is None:
        return AckOutcome(AckKind.NOT_OURS, text="the answer holds no MSA segment, so it acknowledges nothing")
    code = msa.value(1).upper()
    # As it stands on the wire: what is made legible first would turn another's identifier into ours.
    named = "".join(msa.parts(2)[:1]).strip(" ")
    if named != expected_control_id:
        about = "another message" if named else "no message"
        return AckOutcome(AckKind.NOT_OURS, code, text=f"the answer ({code or 'no code'}) names {about}, not ours")
    meanings = {**JUDGEMENTS, **(judgements or {})}
    conditions = _conditions(message)
    text = _words(message)
    warnings_alone = code in ("AA", "CA") and all(severity in ("W", "I") for _, severity in conditions)
    judged = [(meanings[condition], condition) for condition, _ in conditions if condition in meanings]
    if judged and not (warnings_alone and conditions):
        worst = min(judged, key=lambda pair: _SEVERITY.index(pair[0]))
        return _told(AckOutcome(worst[0], code, worst[1], text))
    err_code = conditions[0][0] if conditions else ""
    if code not in meanings:
        return AckOutcome(
            AckKind.REJECT_AFTER_TRIES,
            code,
            err_code,
            f"MSA-1 is {code!r}, which is no acknowledgement code. {text}".strip(),
        )
    return _told(AckOutcome(meanings[code], code, err_code, text))


_SEVERITY = (AckKind.REJECTED, AckKind.REJECT_AFTER_TRIES, AckKind.RETRY, AckKind.NOT_OURS, AckKind.DELIVERED)


def _conditions(message: Message) -> list[tuple[str, str]]:
    """Table 0357 codes with their severities, from ERR-3, or as before 2.5 from ERR-1.4 and MSA-6; "0" is none."""
    found: list[tuple[str, str]] = []
    for err in message.all("ERR"):
        code = err.value(3) or err.value(1, 4)
        if code not in ("", "0"):
            found.append((code, err.value(4).upper()))
    msa = message.first("MSA")
    if not found and msa is not None and msa.value(6) not in ("", "0"):
        found.append((msa.value(6), ""))
    return found


def _words(message: Message) -> str:
    """What the receiver says, each sentence once: ERR-8, ERR-7, ERR-3.2, MSA-3, and where."""
    said: list[str] = []
    for err in message.all("ERR"):
        place = "-".join(
            part for part in (err.value(2, 1) or err.value(1, 1), err.value(2, 3) or err.value(1, 3)) if part
        )
        what = (
            err.value(8) or err.value(7) or err.value(3, 2) or err.value(1, 4, 2) or ERROR_TEXTS.get(err.value(3), "")
        )
        said.append(f"{what} (at {place})" if what and place else what)
    msa = message.first("MSA")
    said.append(msa.value(3) if msa else "")
    return "; ".join(dict.fromkeys(text for text in said if text))


def _told(outcome: AckOutcome) -> AckOutcome:
    """The outcome with a sentence, where the receiver gave none."""
    if outcome.text or outcome.kind is AckKind.DELIVERED:
        return outcome
    error = f" with error {outcome.err_code} ({ERROR_TEXTS.get(outcome.err_code, 'local')})" if outcome.err_code else ""
    return replace(outcome, text=f"answered {outcome.code}{error} without a word why")
