"""Templates to text: the environment that every page is rendered in, and the rows, kept while they do not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from firstread.agent.web import words
from firstread.agent.web.board import Snapshot
from firstread.agent.web.rows import RowView

STATIC = Path(__file__).parent / "static"

WAIT = "\x02wait\x03"
"""Stands for the waiting time in a rendered row: it changes while the row does not."""


class Pages:
    """Renders with autoescape on: what senders write is never markup."""

    def __init__(self, site: str, longest_wait_words: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("firstread.agent.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=asset, site=site, longest_wait_words=longest_wait_words, words=words, WAIT=WAIT
        )
        self._row_template = self._environment.get_template("row.html")
        self._row = lru_cache(maxsize=8192)(self._render_row)

    def render(self, name: str, **values: Any) -> str:
        """A whole page or a part of one."""
        return self._environment.get_template(name).render(**values)

    def row(self, view: RowView, now: datetime) -> str:
        """A row with its waiting time at ``now``."""
        before, after = self._row(view)
        wait = timedelta(seconds=max(0.0, now.timestamp() - view.arrived_ms / 1000))
        return f"{before}{words.wait_words(wait)}{after}"

    def rows(self, views: Iterable[RowView], now: datetime) -> str:
        """Rows one after the other."""
        return "".join(self.row(view, now) for view in views)

    def live_message(self, snapshot: Snapshot, before: Snapshot | None) -> str:
        """What an open page is told: both orders, what changed, the facts on top.

        With ``before`` the changed rows are in it; without, the page asks for those whose signature differs.
        """
        known = before.signatures if before is not None else snapshot.signatures
        changed = {
            row.id: self.row(row, snapshot.at)
            for row in snapshot.rows
            if known.get(row.id) != snapshot.signatures[row.id]
        }
        return json.dumps(
            {
                "now": int(snapshot.at.timestamp() * 1000),
                "order": [[row.id, snapshot.signatures[row.id]] for row in snapshot.rows],
                "arrival": snapshot.arrival,
                "rows": changed,
                "stand": self.render("stand.html", snapshot=snapshot),
                "empty": self.render("empty.html", snapshot=snapshot) if not snapshot.rows else "",
            },
            separators=(",", ":"),
        )

    def _render_row(self, view: RowView) -> tuple[str, str]:
        """What stands before the waiting time, and behind it."""
        before, _, after = (self._row_template.render(row=view).strip() + "\n").partition(WAIT)
        return before, after


@lru_cache(maxsize=16)
def asset(name: str) -> str:
    """The address of a static file, with a mark of its content: browsers keep it until it changes."""
    mark = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"/static/{name}?v={mark}"
