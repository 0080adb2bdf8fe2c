"""Principal motions of a molecule from the particles of a cryo-EM refinement.

README.md describes the rooms of the engine. This file imports none of them, so that a light program can use
`solvar_engine.contract` without the numerical libraries.
"""

__version__ = "0.1.0"
