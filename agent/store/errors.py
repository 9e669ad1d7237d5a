"""What can go wrong with the database, apart from it so that a command can catch it without loading it."""

from __future__ import annotations


class StoreError(Exception):
    """The database cannot do what was asked; the message says what to do."""


class StoreBusy(StoreError):
    """Somebody else holds the database longer than we may wait: try again later."""
