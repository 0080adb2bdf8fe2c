"""What the search for a structure has done, in a folder, so that a killed run can go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solvar_engine.contract.files import atomic_path


class TensorFolder:
    """Tensors by name, one file for those that were saved together.

    Parameters
    ----------
    folder : Path
        Created if needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """Tensors that were saved under a name, on the CPU; None if there are none."""
        path = self._folder / f"{name}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Replace the tensors of a name; a reader sees the old ones or the new ones, never half of each."""
        with atomic_path(self._folder / f"{name}.npz") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **{key: tensor.cpu().numpy() for key, tensor in tensors.items()})  # type: ignore[arg-type]
