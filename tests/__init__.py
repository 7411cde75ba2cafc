"""Needed: kronfluence installs a top-level package `tests`, which would hide this folder without it."""
