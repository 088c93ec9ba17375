"""Readers of published data sets; each gives clips of one kind."""
