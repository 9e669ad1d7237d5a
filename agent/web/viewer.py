"""The viewer (OHIF) that ``deploy/fetch_viewer.py`` fetched, under the page's own address."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

PLACE = "/viewer"
ADDRESS = PLACE + "/viewer?StudyInstanceUIDs={study}"
"""Where it shows a study."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; manifest-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content security policy of the viewer alone: its codecs are WebAssembly, its workers are made by itself, its styles
stand in the page."""


def is_viewer(path: str) -> bool:
    """True for addresses of the viewer."""
    return path.startswith(PLACE + "/")


class ViewerFiles(StaticFiles):
    """Its files; an address that is no file is a view of the application, which its one page draws."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or the page. A missing file with a suffix is missing."""
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            response = await super().get_response("index.html", scope)
        response.headers["cache-control"] = "no-cache"  # asked for again, and not sent again while it is the same
        return response


async def _not_set_up(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise HTTPException(404, "No viewer is set up: fetch it by deploy/fetch_viewer.py and set [web] viewer_folder.")


def route(folder: Path | None) -> Mount:
    """Its addresses, which say so where no viewer is set up."""
    if folder is None or not (folder / "index.html").is_file():
        return Mount(PLACE, _not_set_up)
    return Mount(PLACE, ViewerFiles(directory=folder))
