"""A sender over DICOMweb, for tests: bodies of store requests, and the request itself."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset

BOUNDARY = "a-boundary-of-tests"
DICOM_PARTS = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def named(dataset: Dataset, study: str = "1.2.3") -> Dataset:
    """The data set as the only instance of a study."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.1"
    return dataset


def part10(dataset: Dataset) -> bytes:
    """A data set as a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes, content_type: str = "application/dicom") -> bytes:
    """A multipart/related body."""
    return multipart(*(({"Content-Type": content_type}, part) for part in parts))


def multipart(*parts: tuple[Mapping[str, str], bytes]) -> bytes:
    """A multipart/related body of parts with their headers."""
    written = b""
    for headers, content in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        written += f"--{BOUNDARY}\r\n{lines}\r\n".encode() + content + b"\r\n"
    return written + f"--{BOUNDARY}--\r\n".encode()


def send(port: int, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Stores files one request each; answers with the response documents. Fails unless all were stored."""
    answers = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/dicom-web", timeout=120) as client:
        for path in paths:
            answer = client.post("/studies", content=body(path.read_bytes()), headers={"content-type": DICOM_PARTS})
            assert answer.status_code in (200, 202) and "00081198" not in answer.json(), answer.text
            answers.append(json.loads(answer.text))
    return answers
