"""Errors of poses, and poses that fit better."""
