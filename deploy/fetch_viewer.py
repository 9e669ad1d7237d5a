"""Fetches the OHIF viewer (MIT) and sets it up for this server: ``python deploy/fetch_viewer.py FOLDER``.

The built pages come inside npm's package ``@ohif/app``, through whatever registry npm is set up for; its version
and hash are pinned here. Then name FOLDER as ``viewer_folder`` in ``[web]``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PACKAGE = "@ohif/app@3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
PLACE = "/viewer/"
LEFT_OUT = ("ort", "dicom-microscopy-viewer", "customizations")
"""Folders that films do not need: networks that segment in the browser (150 MB), slides, examples."""


@dataclass(frozen=True)
class Mend:
    """A place of the built scripts, which must be there once, and how it is put right."""

    why: str
    old: str
    new: str


MENDS = (
    Mend(
        'takes the first letter of a VOI LUT Function that is a string, finds no function "L", and draws white',
        "voiLutModule.voiLUTFunction[0]",
        "[].concat(voiLutModule.voiLUTFunction)[0]",
    ),
    Mend(
        "calls a handler that is set nowhere when a picture is given up, as where another is opened in its place",
        "    handler(detail.error);\n",
        "    handler?.(detail.error);\n",
    ),
    Mend(
        "takes every measurement group of a report (TID 1501) for one with a region, and fails at those without",
        "srDisplaySet.measurements = _getMeasurements(ContentSequence);",
        "srDisplaySet.measurements = _getMeasurements(ContentSequence).filter(one => one.coords.length);",
    ),
    Mend(
        "does not expect a report without any region",
        """  const {
    displaySetInstanceUID
  } = measurement;
  if (!displaySet.keyImageDisplaySet) {""",
        """  const {
    displaySetInstanceUID
  } = measurement ?? {};
  if (!displaySet.keyImageDisplaySet) {""",
    ),
    Mend(
        "draws a region without the name of its finding",
        "labels: [],\n    coords: [pointDataItem],",
        """labels: mergedContentSequence.filter(one => one.ConceptNameCodeSequence.CodeValue === '121071')
      .map(one => ({ label: 'Finding', value: one.ConceptCodeSequence.CodeMeaning })),
    coords: [pointDataItem],""",
    ),
    Mend(
        'writes the unit "1" (UCUM: no unit) behind the number at a region',
        "value: `${formatedNumericValue} ${CodeValue}`",
        "value: CodeValue === '1' ? formatedNumericValue : `${formatedNumericValue} ${CodeValue}`",
    ),
    Mend(
        "offers to take every region over as the reader's own measurement, and not those alone that it wrote itself",
        "const hydratable = adapter && mappingDefinitions.has(adapter.toolType) || adapters"
        " && adapters.some(adapter => mappingDefinitions.has(adapter.toolType));",
        "const hydratable = adapter && mappingDefinitions.has(adapter.toolType);",
    ),
    Mend(
        "shows regions alone of a measurement report (TID 1500): its text belongs beside them",
        "return /*#__PURE__*/react.createElement(components_OHIFCornerstoneSRMeasurementViewport, props);",
        """return react.createElement('div', { style: { display: 'flex', width: '100%', height: '100%' } },
      react.createElement(components_OHIFCornerstoneSRMeasurementViewport, props),
      react.createElement('div',
        { style: { flex: '1 0 40%', minWidth: 0, overflow: 'auto', overflowWrap: 'anywhere' } },
        react.createElement(components_OHIFCornerstoneSRTextViewport, props)));""",
    ),
    Mend(
        "shows the text of the oldest report of a series, where its regions are those of the newest",
        "const instance = displaySet.instances[0];\n  return /*#__PURE__*/react",
        "const instance = displaySet.instance;\n  return /*#__PURE__*/react",
    ),
    Mend(
        'writes the unit "1" (UCUM: no unit) behind a number of the text',
        "return `${NumericValue} ${CodeValue}`;",
        "return CodeValue === '1' ? `${NumericValue}` : `${NumericValue} ${CodeValue}`;",
    ),
    Mend(
        "writes that images and regions are not supported where the text names them",
        "  UIDREF: contentItem => contentItem.UID,\n",
        """  UIDREF: contentItem => contentItem.UID,
  IMAGE: contentItem => contentItem.ReferencedSOPSequence?.[0]?.ReferencedSOPInstanceUID,
  SCOORD: () => 'drawn on the image',
""",
    ),
)
"""What the viewer does wrong with films and reports as the standard has them."""

CONFIG = """window.config = {
  routerBasename: '/viewer',
  extensions: [],
  modes: [],
  showStudyList: false,
  showCPUFallbackMessage: false,
  maxNumberOfWebWorkers: 3,
  investigationalUseDialog: { option: 'always' },
  defaultDataSourceName: 'firstread',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'firstread',
      configuration: {
        friendlyName: 'Firstread',
        name: 'firstread',
        wadoUriRoot: '/dicom-web',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
"""


def verify(tarball: Path) -> None:
    """Raises SystemExit where the package is not the pinned one."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise SystemExit(f"{PACKAGE} is not what it was when it was pinned: {found}")


def unpack(tarball: Path, folder: Path) -> None:
    """Writes the built pages into ``folder``, which is made."""
    folder.mkdir(mode=0o755)
    with tarfile.open(tarball) as packed:
        for member in packed:
            parts = PurePosixPath(member.name).parts
            if parts[:2] != ("package", "dist") or not member.isfile() or ".." in parts:
                continue
            if parts[2] in LEFT_OUT or parts[-1].endswith(".map"):
                continue
            target = folder.joinpath(*parts[2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            content = packed.extractfile(member)
            assert content is not None
            with content, target.open("wb") as out:
                shutil.copyfileobj(content, out)


def adapt(folder: Path) -> None:
    """Moves the pages from ``/`` to their place, and scripts that stand in the page into a file: no inline script is
    let run here."""
    found: Counter[Mend] = Counter()
    for script in folder.glob("*.js"):
        text = script.read_text("utf-8")
        moved = text.replace('__webpack_require__.p = "/"', f'__webpack_require__.p = "{PLACE}"')
        for mend in MENDS:
            found[mend] += moved.count(mend.old)
            moved = moved.replace(mend.old, mend.new)
        if moved != text:
            script.write_text(moved, "utf-8")
    if other := [mend.why for mend in MENDS if found[mend] != 1]:
        raise SystemExit(f"{PACKAGE} is another than the one that this script was written for: {'; '.join(other)}")
    for sheet in folder.glob("*.css"):
        sheet.write_text(re.sub(r"url\((['\"]?)/(?!/)", rf"url(\1{PLACE}", sheet.read_text("utf-8")), "utf-8")
    page = folder / "index.html"
    text = page.read_text("utf-8")
    inline = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    text = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    text = re.sub(r'(href|src|content)="/', rf'\1="{PLACE}', text)
    # The worker that keeps pages offline loads its code from another host.
    text = re.sub(r'<script[^>]*init-service-worker\.js"></script>', "", text)
    text = text.replace("<head>", f'<head><script src="{PLACE}start.js"></script>', 1)
    page.write_text(text, "utf-8")
    start = ";\n".join(inline).replace('PUBLIC_URL="/"', f'PUBLIC_URL="{PLACE}"')
    (folder / "start.js").write_text(start + ";\n", "utf-8")
    (folder / "app-config.js").write_text(CONFIG, "utf-8")


def fetch(folder: Path) -> None:
    """Fetches, verifies and sets up the viewer in ``folder``; one that is there already is replaced at the end."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed: on Debian, apt-get install npm")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".viewer-", dir=folder.parent) as scratch:
        packed = subprocess.run(  # noqa: S603
            [npm, "pack", "--silent", PACKAGE, "--pack-destination", scratch], check=False, stdout=subprocess.DEVNULL
        )
        tarballs = list(Path(scratch).glob("*.tgz"))
        if packed.returncode or len(tarballs) != 1:
            raise SystemExit(f"npm could not fetch {PACKAGE}; what it said stands above")
        verify(tarballs[0])
        fresh = Path(scratch) / "fresh"
        unpack(tarballs[0], fresh)
        adapt(fresh)
        if folder.exists():
            if not (folder / "app-config.js").exists() and any(folder.iterdir()):
                raise SystemExit(f"{folder} holds something else: name an empty or a new folder")
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)


def main() -> None:
    """The command."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    parser = argparse.ArgumentParser(description="Fetch the OHIF viewer and set it up for Firstread.")
    parser.add_argument("folder", nargs="?", type=Path, default=data / "firstread/viewer", help="where it goes")
    folder = parser.parse_args().folder.absolute()
    fetch(folder)
    sys.stdout.write(f'The viewer is in {folder}. In the settings:\n\n[web]\nviewer_folder = "{folder}"\n')


if __name__ == "__main__":
    main()
