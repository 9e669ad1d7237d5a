"""Pixels to probabilities. No database, no sockets, no settings object."""
