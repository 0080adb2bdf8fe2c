"""The door through which Scipion's installer finds the plugin; all of it is in `solvar_plugin`.

Scipion's plugin manager, ``scipion installp``, takes the first package by name of a distribution for the plugin's
module. Without this one that would be `solvar_engine`, and the installation would end in an error.
"""

from __future__ import annotations

from solvar_plugin import Plugin, __version__
