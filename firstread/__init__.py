"""Firstread reads chest radiographs first, so that a radiologist sees the worrisome ones first."""

__version__ = "0.1.0"
