"""A film as a picture, asked for over HTTP: WADO-RS rendered, ours beside Orthanc's DICOMweb plug-in.

    python -m benchmarks.rendered [--short] [--rounds N] [--json FILE]

A phantom of 3000 x 2460 pixels, 12 bits, by transfer syntax; a JPEG that fits 1024 x 1024 pixels, over one connection
that is kept. Both have been asked once before. Each picture is checked: its size, and that it looks like the film as we
draw it. ``ratio``: Orthanc's median to ours, the worst syntax that both can read; the goal is 150 ms.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLSLossless

from benchmarks.harness import Measured, PeerMissing, WrongResult, arguments, report, require, rounds
from benchmarks.ingest import Service, orthanc, ours
from firstread.models.phantoms.cohort import demo_cohort

SIDE = 1024
ALIKE = 0.95
"""Least correlation of the grey values with our own picture of the native film."""
SYNTAXES: Mapping[str, Callable[[Dataset], object]] = {
    "native": Dataset.ensure_file_meta,
    "JPEG-LS": lambda film: film.compress(JPEGLSLossless),
    "JPEG 2000 lossless": lambda film: film.compress(JPEG2000Lossless),
    "JPEG 2000 lossy, 1:10": lambda film: film.compress(JPEG2000, j2k_cr=[10]),
}


class Server:
    """A DICOMweb server that holds the films, and the way to their pictures."""

    def __init__(self, service: Service, films: Mapping[str, Path]) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{service.port}/dicom-web", timeout=60)
        self._service = service
        self._ways = {name: self._store(path) for name, path in films.items()}
        self._seen: dict[str, np.ndarray] = {}

    def _store(self, path: Path) -> str:
        body = b"--film\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n--film--\r\n"
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=film',
            "Accept": "application/dicom+json",
        }
        answer = self._http.post("studies", content=body, headers=headers)
        require(answer.status_code == 200, f"a film was not stored: {answer.status_code} {answer.text[:200]}")
        film = dcmread(path, stop_before_pixels=True)
        return f"studies/{film.StudyInstanceUID}/series/{film.SeriesInstanceUID}/instances/{film.SOPInstanceUID}"

    def ask(self, name: str, like: Callable[[], np.ndarray] | None = None) -> Mapping[str, float]:
        """One picture. Raises WrongResult where it is another one; PeerMissing where the server makes none of it."""
        before, began = self._service.cpu_s(children_end=False), time.perf_counter()
        answer = self._http.get(f"{self._ways[name]}/rendered?viewport={SIDE},{SIDE}", headers={"Accept": "image/jpeg"})
        took, spent = time.perf_counter() - began, self._service.cpu_s(children_end=False) - before
        if answer.status_code != 200:
            raise PeerMissing(f"makes no picture of it (HTTP {answer.status_code})")
        picture = Image.open(io.BytesIO(answer.content)).convert("L")
        require(max(picture.size) == SIDE, f"a picture of {picture.size}")
        grey = np.asarray(picture, np.float32)
        if like is not None:
            spare = grey.shape[1] - like().shape[1]  # Orthanc fills the viewport with black on both sides
            middle = grey[:, spare // 2 : grey.shape[1] - (spare - spare // 2)]
            alike = float(np.corrcoef(middle.ravel(), like().ravel())[0, 1])
            require(alike > ALIKE, f"{name}: a picture of something else ({alike:.2f})")
        self._seen[name] = grey
        return {"ms": took * 1000, "CPU ms": spent * 1000}

    def seen(self, name: str) -> np.ndarray:
        """The newest picture: grey values [rows, columns]."""
        return self._seen[name]

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()


@contextmanager
def serving(top: Path, films: Mapping[str, Path]) -> Iterator[dict[str, Server]]:
    """Both servers with all films; ours first."""
    with ExitStack() as stack:
        found = {}
        for name, start in (("Firstread", partial(ours, role="web")), ("Orthanc", partial(orthanc, stow=True))):
            folder = top / name
            folder.mkdir()
            found[name] = Server(stack.enter_context(start(folder)), films)
            stack.callback(found[name].close)
        yield found


def write_films(top: Path) -> dict[str, Path]:
    """One phantom by transfer syntax, each its own study."""
    films = {}
    for number, (name, encode) in enumerate(SYNTAXES.items()):
        film = demo_cohort(now=datetime.now(), longest_side=3000)[21].dataset()
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(film, keyword, f"{getattr(film, keyword)[:60]}.{number}")
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
        uid = film.SOPInstanceUID
        encode(film)
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = uid
        films[name] = top / f"{number}.dcm"
        film.save_as(films[name], enforce_file_format=True)
    return films


def main() -> None:
    """Measures, checks, prints."""
    parser = arguments(__doc__)
    asked = parser.parse_args()
    count = asked.rounds or (5 if asked.short else 15)
    try:
        with tempfile.TemporaryDirectory(prefix="firstread-rendered-") as name:
            top = Path(name)
            films = write_films(top)
            with serving(top, films) as servers:
                servers["Firstread"].ask("native")
                like = partial(servers["Firstread"].seen, "native")
                rows = [
                    Measured(syntax, who, partial(server.ask, syntax, like))
                    for syntax in films
                    for who, server in servers.items()
                ]
                rounds(rows, 1)
                for row in rows:
                    row.figures.clear()
                rounds(rows, count, say=None)
    except (PeerMissing, WrongResult) as error:
        print(f"no ratio: {error}", file=sys.stderr)
        sys.exit(1)
    pairs = [(rows[at], rows[at + 1]) for at in range(0, len(rows), 2)]

    def ratio() -> float:
        return min(peer.median("ms") / mine.median("ms") for mine, peer in pairs if not peer.missing)

    report(rows, ratio, packages=("pillow", "pydicom"), file=asked.json)


if __name__ == "__main__":
    main()
