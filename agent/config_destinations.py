"""Where results go: the settings of a DICOM, a DICOMweb and an HL7 destination."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from firstread.agent.config_sections import AETitle, Host, Port, Seconds, Section
from firstread.agent.config_webservice import WebServiceSection
from firstread.integration.hl7.charset import codec_of

AckRule = Literal["retry", "reject", "reject_after_tries"]


class RetrySettings(Section):
    """When a delivery that failed is tried again."""

    first_s: Seconds = Field(5, description="Wait before the second try; doubles from try to try, with jitter.")
    max_s: Seconds = Field(300, description="Longest wait: a receiver that is back gets its results within it.")
    give_up_after_h: float | None = Field(
        168,
        gt=0,
        description="Longer than any outage; then it is rejected with an alarm and can be sent by hand. Unset: never.",
    )
    max_refusals: int = Field(
        3, ge=1, description="Refusals by the receiver (not outages) after which a delivery is rejected."
    )

    @model_validator(mode="after")
    def _rising(self) -> RetrySettings:
        if self.max_s < self.first_s:
            raise ValueError("max_s must not be less than first_s")
        return self


class _Reached(Section):
    """Where somebody is reached, plain or by TLS."""

    host: Host = Field(description="Name or address of the receiver.")
    port: Port = Field(description="Its port.")
    connect_timeout_s: Seconds = Field(10, description="Wait for the connection.")
    tls: bool = Field(False, description="Encrypt the connection (TLS).")
    tls_ca_file: Path | None = Field(None, description="Certificates to trust; unset: the system's.")
    tls_certificate_file: Path | None = Field(None, description="Our certificate, where the receiver asks for one.")
    tls_key_file: Path | None = Field(None, description="Key of our certificate.")

    @model_validator(mode="after")
    def _tls(self) -> _Reached:
        if not self.tls and (self.tls_ca_file or self.tls_certificate_file or self.tls_key_file):
            raise ValueError("tls_... files are given but tls is false")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        return self


class PeerSettings(_Reached):
    """A DICOM node that is answered on an association of our own: C-MOVE, commitment. Destinations are known anyway."""

    ae_title: AETitle = Field(description="Its AE title.")
    acse_timeout_s: Seconds = Field(30, description="Wait for the association to be accepted.")
    dimse_timeout_s: Seconds = Field(60, description="Wait for the answer to a message.")


class _Destination(Section):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$",
        description="Name in lists and commands: letters, digits, dot, dash, underscore.",
    )
    hold: bool = Field(
        False, description="Keep deliveries back until 'firstread deliveries release NAME': a site's first weeks."
    )
    retry: RetrySettings = Field(RetrySettings(), description="When a failed delivery is tried again.")


def _kinds(*possible: str) -> BeforeValidator:
    def check(value: object) -> object:
        kinds = (value,) if isinstance(value, str) else value
        if not isinstance(kinds, list | tuple) or not kinds or not all(kind in possible for kind in kinds):
            raise ValueError(
                "a dicom or dicomweb destination can get ['sr', 'heatmap'] or one of them, an hl7 destination ['oru']"
            )
        return tuple(dict.fromkeys(kinds))

    return BeforeValidator(check)


class DicomDestination(_Destination, _Reached):
    """A PACS or archive that takes our objects into the study (C-STORE)."""

    type: Literal["dicom"] = Field(description="dicom, dicomweb or hl7.")
    ae_title: AETitle = Field(description="AE title of the receiver.")
    sends: Annotated[tuple[Literal["sr", "heatmap"], ...], _kinds("sr", "heatmap")] = Field(
        ("sr", "heatmap"), description="What it gets."
    )
    calling_ae_title: AETitle | None = Field(None, description="Our AE title towards it; unset: [dicom] ae_title.")
    acse_timeout_s: Seconds = Field(30, description="Wait for the association to be accepted.")
    dimse_timeout_s: Seconds = Field(60, description="Wait for the answer to a C-STORE.")
    commit: bool = Field(
        False, description="Ask it for storage commitment: a result counts as delivered when it committed to keep it."
    )
    commit_within_h: float = Field(
        48, gt=0, description="Not committed by then is an alarm; it is asked again until it answers."
    )


class DicomwebDestination(_Destination, WebServiceSection):
    """A PACS or archive that takes our objects over HTTP (STOW-RS)."""

    type: Literal["dicomweb"] = Field(description="dicom, dicomweb or hl7.")
    sends: Annotated[tuple[Literal["sr", "heatmap"], ...], _kinds("sr", "heatmap")] = Field(
        ("sr", "heatmap"), description="What it gets."
    )

    @property
    def tls(self) -> bool:
        """True when the connection is encrypted."""
        return self.encrypted


_PLACE = re.compile(r"TQ1-9|OBR-5|OBR-27\.6|OBX-8|OBX:[^|~\\]+|Z[A-Z0-9]{2}-[1-9][0-9]?")


def _place(value: str) -> str:
    if not _PLACE.fullmatch(value):
        raise ValueError("a place is one of TQ1-9, OBR-5, OBR-27.6, OBX-8, OBX:CODE or a field such as ZFR-1")
    return value


PriorityPlace = Annotated[str, AfterValidator(_place)]
HL7Text = Annotated[str, StringConstraints(min_length=1, max_length=227, pattern=r"^[^\r\n]+$")]


AccessionPlace = Literal["OBR-18", "OBR-2", "OBR-3", "OBR-19", "OBR-20", "OBR-21"]
HL7Code = Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=r"^[^|~\\&\r\n]+$")]


class PriorityValues(Section):
    """The code that the receiver reads for each priority that is raised (table 0485)."""

    STAT: HL7Code = Field("S", description="S is STAT in table 0485.")
    URGENT: HL7Code = Field("A", description="A is ASAP in table 0485.")


class AbnormalFlags(Section):
    """The flag in OBX-8 where that is a priority's place (table 0078, in which S means susceptible)."""

    STAT: HL7Code = Field("AA", description="AA is very abnormal in table 0078.")
    URGENT: HL7Code = Field("A", description="A is abnormal in table 0078.")


class Hl7Destination(_Destination, _Reached):
    """A RIS or worklist that reads the priority from a result message (ORU over MLLP)."""

    type: Literal["hl7"] = Field(description="dicom, dicomweb or hl7.")
    sends: Annotated[tuple[Literal["oru"], ...], _kinds("oru")] = Field(("oru",), description="What it gets.")
    answer_timeout_s: Seconds = Field(30, description="Without an acknowledgement by then the message is sent again.")
    sending_application: HL7Text = Field("FIRSTREAD", description="MSH-3: NAME or NAME^OID^ISO.")
    sending_facility: HL7Text | None = Field(None, description="MSH-4; unset: [site] name.")
    receiving_application: HL7Text | None = Field(None, description="MSH-5; unset: empty.")
    receiving_facility: HL7Text | None = Field(None, description="MSH-6; unset: empty.")
    processing_id: Literal["P", "T"] | None = Field(
        None, description="MSH-11; unset: P, or T where [site] use_test_processing_id is set."
    )
    character_set: str = Field("UNICODE UTF-8", description="MSH-18; 8859/1 and the like for receivers without UTF-8.")
    priority_place: tuple[PriorityPlace, ...] = Field(
        ("TQ1-9",), min_length=1, description="Where a priority stands: TQ1-9, OBR-5, OBR-27.6, OBX-8, OBX:CODE, ZFR-1."
    )
    result_status: Literal["R", "P", "F"] = Field(
        "R", description="OBX-11 and OBR-25: R is entered, not verified; P, F claim more, where R is dropped."
    )
    assigning_authority: str = Field(
        "", description="Issuer of patient identifiers where none is known; empty: the site's."
    )
    patient_id_type: HL7Code = Field("MR", description="PID-3.5: MR is a medical record number.")
    accession_place: tuple[AccessionPlace, ...] = Field(
        ("OBR-18",), min_length=1, description="Where the accession number stands; some receivers match on OBR-3."
    )
    every_accession: bool = Field(
        True, description="One group for each accession of the study; false: the first alone."
    )
    on_ack: dict[str, AckRule] = Field(
        {}, description="What MSA-1 or ERR-3 codes mean where this receiver differs: AE = 'retry'."
    )
    priority_values: PriorityValues = Field(PriorityValues(), description="Codes of the raised priorities.")
    abnormal_flags: AbnormalFlags = Field(AbnormalFlags(), description="Flags of the raised priorities in OBX-8.")

    @model_validator(mode="after")
    def _sendable(self) -> Hl7Destination:
        if codec_of(self.character_set) in (None, "utf-16", "utf-32"):
            raise ValueError(f"character_set {self.character_set!r}: use UNICODE UTF-8, or 8859/1 and the like")
        for code in self.on_ack:
            if not re.fullmatch(r"A[ER]|C[ER]|[12]\d\d", code):
                raise ValueError(f"on_ack: {code} is none of AE, AR, CE, CR and the ERR-3 codes 100 to 299")
        return self


Destination = DicomDestination | DicomwebDestination | Hl7Destination
