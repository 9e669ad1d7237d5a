"""What every page works on, and what all of them do alike: render, refuse, say who acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import HTMLResponse

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Settings
from firstread.agent.store import overview as stand
from firstread.agent.store.engine import Store
from firstread.agent.store.overview import Overview
from firstread.agent.store.totals import KeptTotals
from firstread.agent.web.board import Board
from firstread.agent.web.live import Feed
from firstread.agent.web.pages import Pages
from firstread.agent.web.sessions import Session, Sessions


@dataclass
class Desk:
    """Shared by the pages of one application."""

    settings: Settings
    store: Store
    sessions: Sessions
    board: Board
    pages: Pages
    feed: Feed
    totals: KeptTotals = field(default_factory=KeptTotals)

    def overview(self, *, counted: bool = True) -> Overview:
        """How the whole agent stands now; ``counted``: with how many have ended, too."""
        destinations = self.settings.all_destinations
        with self.store.read() as connection:
            return stand.overview(
                connection,
                [one.name for one in destinations],
                [one.name for one in destinations if one.hold],
                clock.now(),
                self.totals.get(connection) if counted else None,
            )

    def page(self, request: Request, template: str, here: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page. ``here``: which of the pages in the head it is."""
        session = session_of(request)
        known = {"user": session.user, "token": self.sessions.form_token(session), "here": here}
        values = {**known, "may_change": self.may_change(request), **values}
        return HTMLResponse(self.pages.render(template, **values), status)

    def message(self, request: Request, title: str, text: str, status: int) -> HTMLResponse:
        """A page that says one thing."""
        return self.page(request, "message.html", "", status, title=title, text=text)

    def not_found(self, request: Request, title: str) -> HTMLResponse:
        """What was asked for is not there."""
        return self.message(request, title, "It may have been deleted when its days were over.", 404)

    def forged(self, request: Request) -> HTMLResponse:
        """A form that is not ours did nothing."""
        return self.message(
            request, "Not done", "The form was too old or not ours. Open the page again and repeat.", 403
        )

    def ours(self, request: Request, form: Any) -> bool:
        """True when the form came from a page of this session."""
        return self.sessions.form_is_ours(session_of(request), str(form.get("token", "")))

    def may_change(self, request: Request) -> bool:
        """True when forms are shown: the guard refuses them to a reader in any case."""
        return self.settings.web.is_admin(session_of(request).user)

    def tell(self, tells: Callable[[Audit, Connection], None]) -> None:
        """Writes an audit message where the site wants them. Raises StoreError: then nothing is shown either."""
        audit = Audit(self.settings)
        if not audit.wanted:
            return
        with self.store.write() as connection:
            tells(audit, connection)

    def actor(self, request: Request) -> str:
        """Who acts, for the trail."""
        return session_of(request).user or "page"


def address_of(request: Request) -> str:
    """The browser's address, empty where it is not known."""
    return request.client.host if request.client else ""


def session_of(request: Request) -> Session:
    """The session that the guard found or began."""
    session: Session = request.state.session
    return session
