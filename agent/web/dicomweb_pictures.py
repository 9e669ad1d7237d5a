"""WADO-RS rendered and thumbnails: what a frame looks like, as JPEG or PNG (PS3.18 10.4.1.1.3, 8.3.5)."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from firstread.agent.store.holdings import HeldObject
from firstread.agent.web.dicomweb import Dicomweb, acceptable
from firstread.agent.web.dicomweb_retrieve import frame_numbers, held_objects
from firstread.agent.web.dicomweb_work import RenderOrder
from firstread.integration.dicomweb import media, multipart
from firstread.integration.dicomweb.errors import BadRequest, NotAcceptable
from firstread.models.rendering import View

JPEG, PNG = "image/jpeg", "image/png"
THUMBNAIL_SIDE = 200
LARGEST_VIEWPORT = 16384
_SHAPES = ("linear", "linear-exact", "sigmoid")


class Pictures:
    """Handlers of the rendered resources."""

    def __init__(self, shared: Dicomweb) -> None:
        self._shared = shared

    def rendered(self, request: Request) -> Response:
        """Frames as pictures: one alone, several (and those of a study or series) as multipart/related."""
        return self._pictures(request, _view(request), several="instance" not in request.path_params)

    def thumbnail(self, request: Request) -> Response:
        """A small picture that stands for what is meant."""
        view = _view(request)
        if view.width is None:
            view = View(THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        return self._pictures(request, view, several=False)

    def _pictures(self, request: Request, view: View, *, several: bool) -> Response:
        chosen = media.choose(acceptable(request), (JPEG, PNG), multipart=None)
        if chosen is None:
            raise NotAcceptable(f"pictures come as {JPEG} or {PNG}")
        quality = _quality(request.query_params.get("quality", "90"))
        found = held_objects(self._shared, request)
        frames = frame_numbers(request) if "frames" in request.path_params else [1]
        wanted = [(held, frame) for held in found for frame in frames]
        reasons: list[str] = []
        made = self._made(wanted, view, chosen[1], quality, reasons)
        first = next(made, None)
        if first is None:
            raise NotAcceptable(f"no picture can be made of it: {reasons[0]}")
        if not several and len(frames) == 1:
            return Response(first, 200, media_type=chosen[1])
        boundary = multipart.new_boundary()

        def parts() -> Iterator[tuple[dict[str, str], tuple[bytes, ...]]]:
            yield {"Content-Type": chosen[1]}, (first,)
            for picture in made:
                yield {"Content-Type": chosen[1]}, (picture,)

        content = multipart.written(boundary, parts())
        return StreamingResponse(content, 200, media_type=f'multipart/related; type="{chosen[1]}"; boundary={boundary}')

    def _made(
        self, wanted: list[tuple[HeldObject, int]], view: View, kind: str, quality: int, reasons: list[str]
    ) -> Iterator[bytes]:
        """Pictures of what can be shown; ``reasons`` gets why the others cannot."""
        for held, frame in wanted:
            path = self._shared.holdings.path(held)
            if len(wanted) == 1:
                path.stat()  # what is gone is told as gone
            ended = self._shared.helpers.ask(RenderOrder(path, frame, view, kind, quality))
            if ended.answer is not None and not ended.answer.why_not:
                yield ended.answer.content
            else:
                reasons.append(ended.answer.why_not if ended.answer else ended.failure)


def _view(request: Request) -> View:
    viewport, window = request.query_params.get("viewport"), request.query_params.get("window")
    width = height = region = None
    if viewport is not None:
        numbers = _numbers("viewport", viewport, (2, 6))
        width, height = int(numbers[0]), int(numbers[1])
        if not (1 <= width <= LARGEST_VIEWPORT and 1 <= height <= LARGEST_VIEWPORT):
            raise BadRequest(f"viewport: 1 to {LARGEST_VIEWPORT} pixels")
        if len(numbers) == 6:
            region = (numbers[2], numbers[3], numbers[4], numbers[5])
            if min(region) < 0 or 0 in region[2:]:
                raise BadRequest("viewport: a region without area, or one that would be flipped")
    return View(width, height, region, None if window is None else _window(window))


def _window(value: str) -> tuple[float, float, str]:
    parts = value.split(",")
    if len(parts) not in (2, 3):
        raise BadRequest("window is centre,width,shape")
    shape = parts[2] if len(parts) == 3 else "linear"
    centre, width = _numbers("window", ",".join(parts[:2]), (2,))
    if shape not in _SHAPES or width <= 0 or (shape == "linear" and width <= 1) or max(abs(centre), width) > 1e9:
        raise BadRequest(f"window: a width above 1 and a shape of {', '.join(_SHAPES)}")
    return centre, width, shape


def _numbers(name: str, value: str, counts: tuple[int, ...]) -> list[float]:
    parts = value.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise BadRequest(f"{name}={value[:40]!r} holds something that is no number") from error
    if len(numbers) not in counts or not all(abs(number) < 1e12 for number in numbers):
        raise BadRequest(f"{name}={value[:40]!r} has the wrong number of numbers, or senseless ones")
    return numbers


def _quality(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:4]) <= 100:
        raise BadRequest(f"quality={value[:10]!r} is not between 1 and 100")
    return int(value)
