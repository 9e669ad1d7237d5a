"""Which presentation contexts are accepted, and in which transfer syntax (PS3.8 7.1.1.13, PS3.5 10)."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

NATIVE = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.2",  # explicit VR big endian (retired)
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.1.98",  # encapsulated uncompressed
)

LOSSLESS = (
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, selection value 1
    "1.2.840.10008.1.2.4.57",  # JPEG lossless, process 14
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 part 2 lossless
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.8.1",  # deflated frames
)

MAYBE_LOSSY = (
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.51",  # JPEG extended, 12 bit
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 part 2
    "1.2.840.10008.1.2.4.111",  # JPEG XL, JPEG recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    *(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, 58, 59, 60, 61, 62, 63, 64, 65, 66)),
)
"""Taken only where nothing native or lossless stands in the same context. Syntaxes without a decoder here are taken as
well: a film that is kept and called "cannot decode" is seen, a film that was refused is not."""

TRANSFER_SYNTAXES = NATIVE + LOSSLESS + MAYBE_LOSSY
"""In the order of our preference, which decides (PS3.8 9.3.3.2). Native first: any sender can produce it, and none has
to compress for us; lossy last, because a PACS would recompress. No JPIP (pixels are elsewhere) and no video."""

_STANDARD = "1.2.840.10008."
_STANDARD_STORAGE = "1.2.840.10008.5.1.4.1.1."


@lru_cache(maxsize=4096)
def is_storage_class(abstract_syntax: str) -> bool:
    """Whether an abstract syntax is taken as a storage SOP class.

    Every storage class that pynetdicom or the DICOM registry (retired ones included) knows. Private classes too, and
    numbers under the standard's storage root that are newer than our registry: PACS forward whole studies, and some
    fail the whole job over one refused context. Standard classes of other services (query, commitment, print) are not.
    """
    if abstract_syntax in _STORAGE_UIDS:
        return True
    known = UID_dictionary.get(abstract_syntax)
    if known is not None:
        name, kind = known[0], known[1]
        return kind == "SOP Class" and "Storage" in name and "Commitment" not in name and "Directory" not in name
    if abstract_syntax.startswith(_STANDARD):
        return abstract_syntax.startswith(_STANDARD_STORAGE)
    return True


_STORAGE_UIDS = frozenset(str(uid) for uid in _STORAGE_CLASSES.values())


def supported_contexts(offered: list[PresentationContext], services: Collection[str] = ()) -> list[PresentationContext]:
    """What we support of what a peer offers: one context for each abstract syntax that we take.

    ``services``: SOP classes that are served beside storage and verification. Chosen from the offer: deep copies of
    all storage classes (pynetdicom's way) cost more than the negotiation, and private classes cannot be listed
    beforehand. Associations share what comes back: nobody may change it.
    """
    supported = []
    gets = STUDY_ROOT_GET in services and any(context.abstract_syntax == STUDY_ROOT_GET for context in offered)
    for abstract_syntax in dict.fromkeys(str(context.abstract_syntax) for context in offered):
        if abstract_syntax == VERIFICATION or abstract_syntax in services:
            syntaxes: tuple[str, ...] = NATIVE[:3]
        elif is_storage_class(abstract_syntax):
            syntaxes = TRANSFER_SYNTAXES
        else:
            continue
        # Role selection (PS3.7 D.3.3.4): who was asked to commit reports as SCP, who asks with C-GET stores as SCP.
        roles = abstract_syntax == STORAGE_COMMITMENT or (gets and syntaxes is TRANSFER_SYNTAXES)
        supported.append(_context(abstract_syntax, syntaxes, roles))
    return supported


@lru_cache(maxsize=1024)
def _context(abstract_syntax: str, syntaxes: tuple[str, ...], roles: bool) -> PresentationContext:
    """One that we support; made once, because pynetdicom examines each of its 27 transfer syntaxes."""
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(syntaxes)
    if roles:
        context.scu_role = context.scp_role = True
    return context
