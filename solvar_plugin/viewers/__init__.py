"""Viewers that Scipion offers; it takes them from here."""

from solvar_plugin.viewers.viewer_covariance import SolvarCovarianceViewer
from solvar_plugin.viewers.viewer_particles import SolvarParticlesViewer
from solvar_plugin.viewers.viewer_reconstruct import SolvarReconstructViewer

__all__ = ["SolvarCovarianceViewer", "SolvarParticlesViewer", "SolvarReconstructViewer"]
