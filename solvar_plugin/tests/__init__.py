"""Tests that run in Scipion: ``scipion tests solvar_plugin.tests.test_engine``, and so on."""
