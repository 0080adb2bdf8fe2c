"""Protocols that Scipion offers; it takes them from here."""

from solvar_plugin.protocols.protocol_base import SolvarProtBase
from solvar_plugin.protocols.protocol_covariance import SolvarProtCovariance
from solvar_plugin.protocols.protocol_flexhub import SolvarProtFlexHub
from solvar_plugin.protocols.protocol_from_run import SolvarProtFromRun
from solvar_plugin.protocols.protocol_particles import SolvarProtParticles
from solvar_plugin.protocols.protocol_reconstruct import SolvarProtReconstruct
from solvar_plugin.protocols.protocol_refine import SolvarProtRefine
from solvar_plugin.protocols.protocol_select import SolvarProtSelectParticles
