"""A compressed object made native, in a process of its own: codecs crash, and bombs fill memory.

``python -m firstread.agent.decompress SOURCE TARGET TRANSFER_SYNTAX``; the receiver, which asks for it, loads no codec.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import uuid
from pathlib import Path

from firstread.integration.dicom.query import CannotConvert

MEMORY_LIMIT_BYTES = 8 << 30
TIMEOUT_S = 120.0
REVERSIBLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_RCT", "YBR_FULL")
"""Photometric interpretations whose pixels are what the decoder gives, without a colour conversion that rounds."""


def decompress(source: Path, transfer_syntax: str, folder: Path) -> Path:
    """A native copy of a Part 10 file in ``folder``, under a name that the receiver sweeps. Raises CannotConvert."""
    target = folder / f"incoming-{uuid.uuid4().hex}.part"
    command = [sys.executable, "-m", "firstread.agent.decompress", str(source), str(target), transfer_syntax]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired as error:
        target.unlink(missing_ok=True)
        raise CannotConvert(f"decompressing took longer than {TIMEOUT_S:g} s") from error
    if done.returncode:
        target.unlink(missing_ok=True)
        said = done.stderr.strip().splitlines()
        raise CannotConvert(said[-1] if said and done.returncode == 1 else f"a codec crashed ({done.returncode})")
    return target


def main(source: str, target: str, transfer_syntax: str) -> int:
    """Does it; what stands in the way is one line on standard error and exit code 1."""
    import pydicom

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # Who asked may have been killed, and watches no more.
    resource.setrlimit(resource.RLIMIT_CPU, (int(TIMEOUT_S), int(TIMEOUT_S)))
    try:
        content = pydicom.dcmread(source)
        photometric = str(content.get("PhotometricInterpretation", ""))
        if photometric not in REVERSIBLE:
            raise ValueError(f"{photometric or 'no photometric interpretation'} cannot be decompressed without a loss")
        content.decompress(as_rgb=photometric == "YBR_RCT", generate_instance_uid=False)
        content.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
        content.save_as(
            target, enforce_file_format=True, implicit_vr=content.file_meta.TransferSyntaxUID.is_implicit_VR,
            little_endian=True,
        )  # fmt: skip
    except Exception as error:  # whatever a codec or a broken file leads to
        first = (str(error).splitlines() or [""])[0]
        print(f"cannot be decompressed: {type(error).__name__}: {first}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
