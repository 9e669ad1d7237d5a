"""Weights made elsewhere become bundles: read without running anything, renamed, checked, and tried out."""
