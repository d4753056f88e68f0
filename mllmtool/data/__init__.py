"""Samples and suites on disk. No torch here."""
