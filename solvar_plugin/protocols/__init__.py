"""Protocols that Scipion offers; it takes them from here."""

from solvar_plugin.protocols.protocol_base import SolvarProtBase
from solvar_plugin.protocols.protocol_covariance import SolvarProtCovariance

__all__ = ["SolvarProtBase", "SolvarProtCovariance"]
