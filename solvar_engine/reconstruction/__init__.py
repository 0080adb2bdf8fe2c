"""Volumes from images: normal equations, regularised half-set means."""
