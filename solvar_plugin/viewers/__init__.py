"""Viewers that Scipion offers; it takes them from here."""

from solvar_plugin.viewers.viewer_abinitio import SolvarAbinitioViewer
from solvar_plugin.viewers.viewer_covariance import SolvarCovarianceViewer
from solvar_plugin.viewers.viewer_particles import SolvarExplorerViewer, SolvarParticlesViewer
from solvar_plugin.viewers.viewer_reconstruct import SolvarReconstructViewer
from solvar_plugin.viewers.viewer_refine import SolvarRefineViewer
from solvar_plugin.viewers.windows.set_columns import show_columns

show_columns()
