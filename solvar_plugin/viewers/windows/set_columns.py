"""Columns of Scipion's table of volumes: by itself it shows pictures only, and hides what is known of each volume."""

from __future__ import annotations

from pwem.objects import SetOfVolumes
from pwem.viewers.showj import ORDER, VISIBLE
from pwem.viewers.viewers_data import RegistryViewerConfig

STATE_COLUMNS = ("_solvarState", "_solvarParticles", "_solvarResolution")
COMPONENT_COLUMNS = ("_solvarComponent", "_solvarEigenvalue", "_solvarFraction", "_solvarAgreement", "_solvarLabel")


def show_columns() -> None:
    """Let the table show the plugin's columns of sets that have them; other sets look as before."""
    config = RegistryViewerConfig.getConfig(SetOfVolumes) or {}
    for key in (ORDER, VISIBLE):
        shown = config.get(key, "id enabled _filename").split()
        config[key] = " ".join(dict.fromkeys([*shown, *STATE_COLUMNS, *COMPONENT_COLUMNS]))
    RegistryViewerConfig.registerConfig(SetOfVolumes, config)
