"""Volumes of states of a finished run, and the latent space that they are places in."""
