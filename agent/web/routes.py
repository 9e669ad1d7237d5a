"""What is answered at which address. Everything that asks the database runs in a thread, never in the event loop."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from firstread.agent.web.desk import Desk
from firstread.agent.web.list_pages import ListPages
from firstread.agent.web.login_pages import LoginPages
from firstread.agent.web.pages import STATIC
from firstread.agent.web.system_pages import SystemPages
from firstread.agent.web.viewer import route as viewer_route


class KeptFiles(StaticFiles):
    """Static files that browsers keep: their address changes with their content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, to be kept."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def routes(desk: Desk) -> list[BaseRoute]:
    """Every address."""
    return [
        *ListPages(desk).routes(),
        *SystemPages(desk).routes(),
        *LoginPages(desk).routes(),
        Mount("/static", KeptFiles(directory=STATIC)),
        viewer_route(desk.settings.web.viewer_folder),
    ]
