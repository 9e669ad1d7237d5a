"""QIDO-RS: searching for studies, series and instances that are held here (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from firstread.agent.store.holdings_search import BadQuery, Level, Query, can_match, search
from firstread.agent.web.dicomweb import Dicomweb, base_url, data_sets, uid_of
from firstread.integration.dicomweb.errors import BadRequest
from firstread.integration.dicomweb.query import data_set, search_query

USUAL_LIMIT, LARGEST_LIMIT = 100, 500


class Search:
    """Handlers of the search service."""

    def __init__(self, shared: Dicomweb) -> None:
        self._shared = shared

    def studies(self, request: Request) -> Response:
        """Search for studies."""
        return self._search(request, Level.STUDY)

    def series(self, request: Request) -> Response:
        """Search for series, of one study or of all."""
        return self._search(request, Level.SERIES)

    def instances(self, request: Request) -> Response:
        """Search for instances, of one series, one study or of all."""
        return self._search(request, Level.INSTANCE)

    def _search(self, request: Request, level: Level) -> Response:
        self._shared.helpers.warm()  # who searches will soon look
        asked = search_query(request.query_params.multi_items())
        warnings = []
        match = {keyword: value for keyword, value in asked.match.items() if can_match(keyword, level)}
        if ignored := sorted(set(asked.match) - set(match)):
            warnings.append(f"not matched on this level: {', '.join(ignored)[:200]}")
        for name, keyword in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
            if name in request.path_params:
                match[keyword] = uid_of(request, name)
        limit = min(USUAL_LIMIT if asked.limit is None else asked.limit, LARGEST_LIMIT)
        try:
            with self._shared.store.read() as connection:
                query = Query(level, match, asked.fuzzy)
                found = search(connection, query, limit=limit + 1, offset=asked.offset)
        except BadQuery as error:
            raise BadRequest(str(error)) from error
        if len(found) > limit:
            warnings.append(f"there are more results after these {limit}: ask on with offset")
        root = base_url(request)
        headers = {"warning": ", ".join(f'299 {root} "{one}"' for one in warnings)} if warnings else {}
        return data_sets(request, [_written(one, level, root) for one in found[:limit]], headers)


def _written(found: Mapping[str, Any], level: Level, root: str) -> dict[str, Any]:
    place = f"{root}/studies/{found['StudyInstanceUID']}"
    if level >= Level.SERIES and "SeriesInstanceUID" in found:
        place += f"/series/{found['SeriesInstanceUID']}"
        if level >= Level.INSTANCE:
            place += f"/instances/{found['SOPInstanceUID']}"
    return data_set({**found, "InstanceAvailability": "ONLINE", "RetrieveURL": place})
