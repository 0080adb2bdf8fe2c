"""Protocols that Scipion offers; it takes them from here."""

from solvar_plugin.protocols.protocol_base import SolvarProtBase
from solvar_plugin.protocols.protocol_covariance import SolvarProtCovariance
from solvar_plugin.protocols.protocol_particles import SolvarProtParticles

__all__ = ["SolvarProtBase", "SolvarProtCovariance", "SolvarProtParticles"]
