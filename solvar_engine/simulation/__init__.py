"""Simulated data sets whose truth is known in closed form: phantoms, their volumes and their images."""
