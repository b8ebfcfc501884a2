"""Heads that answer with a box, a span of time, a mask or a track (TPO)."""
