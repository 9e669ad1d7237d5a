"""The standard's schema for audit messages, for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import rnc2rng
from lxml import etree


@cache
def _schema() -> etree.RelaxNG:
    root = rnc2rng.load(str(Path(__file__).with_name("audit_message.rnc")))
    return etree.RelaxNG(etree.fromstring(rnc2rng.dumps(root).encode()))


def checked(message: bytes) -> etree._Element:
    """The message as a tree; AssertionError with the schema's words when it is not valid."""
    tree = etree.fromstring(message)
    schema = _schema()
    assert schema.validate(tree), schema.error_log
    return tree
