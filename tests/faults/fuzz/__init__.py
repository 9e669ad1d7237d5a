"""Hostile input at every edge: ``python -m tests.faults.fuzz --seconds N --seed S``."""
