"""Readers of head trajectories and of wrists."""
