"""What a DICOMweb request can be refused for: an HTTP status, and a sentence that says why (PS3.18 8.5)."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not done; the message goes into the answer's body."""

    status = 400


class BadRequest(RequestError):
    """400: malformed in itself."""


class NotAcceptable(RequestError):
    """406: none of the media types asked for can be made of what was asked for."""

    status = 406


class TooLarge(RequestError):
    """413: more than is taken."""

    status = 413


class UnsupportedMediaType(RequestError):
    """415: a body of another kind than the service takes."""

    status = 415
