"""Rotations and resampling: mathematics that knows nothing of bodies."""
