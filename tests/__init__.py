"""Tests of the engine; folders mirror its rooms."""
