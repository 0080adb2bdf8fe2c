"""The name of every file in the run directory of `fit`.

Nothing else in the engine, and nothing in a graphical interface, spells these names.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from solvar_engine.contract.status import status_path

FIGURE_NAMES = (
    "scree",
    "states",
    "latent",
    "histograms",
    "umap",
    "maps",
    "fsc",
    "noise",
    "images",
    "poses",
    "orientations",
    "convergence",
)
"""Figures of `analyze`, in the order of the report; a run has those that it has data for."""

FILES_BEFORE_PARAMS = frozenset({"lock", "status.json", "log.txt"})
"""Names of what a run may hold that ended before it stored its options."""

EXPLORER_PAGES = ".explorer-*.html"
"""Names of the files by which `explore` leads the browser to its page; they are gone when it is open."""

# what a run holds besides the files that `RunDir` has a name for, by folder
_OTHER_FILES = {
    ".": (EXPLORER_PAGES,),
    "eigenvolumes": ("eigenvolume_*.mrc",),
    "checkpoint": ("*.npz",),
    "analysis/selections": ("*.json", "*.csv"),
}


class RunDir:
    """Names of the files of one run; nothing is read or written.

    Parameters
    ----------
    path : path
        The folder; it need not exist.

    Examples
    --------
    >>> RunDir("run").eigenvolume(1).as_posix()
    'run/eigenvolumes/eigenvolume_001.mrc'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def params(self) -> Path:
        """Options in force, seed, versions, input files."""
        return self.path / "params.json"

    @property
    def status(self) -> Path:
        """State and progress of the run."""
        return status_path(self.path)

    @property
    def mean(self) -> Path:
        """Mean volume at the working box."""
        return self.path / "mean.mrc"

    @property
    def mean_half1(self) -> Path:
        """Mean volume of the first half-set."""
        return self.path / "mean_half1.mrc"

    @property
    def mean_half2(self) -> Path:
        """Mean volume of the second half-set."""
        return self.path / "mean_half2.mrc"

    @property
    def mask(self) -> Path:
        """Soft mask in force; that of the mean."""
        return self.path / "mask.mrc"

    @property
    def focus_mask(self) -> Path:
        """Soft mask of the eigenvolumes, the product of the focus mask and the mask; only if there is a focus mask."""
        return self.path / "focus_mask.mrc"

    @property
    def eigenvolumes(self) -> Path:
        """Folder of the eigenvolumes."""
        return self.path / "eigenvolumes"

    def eigenvolume(self, component: int) -> Path:
        """Eigenvolume of one component, numbered from 1."""
        if component < 1:
            raise ValueError(f"components are numbered from 1, got {component}")
        return self.eigenvolumes / f"eigenvolume_{component:03d}.mrc"

    def half_eigenvolume(self, component: int, half: int) -> Path:
        """What one half-set (1 or 2) alone makes of the eigenvolume of a component: volumes of states need it."""
        whole = self.eigenvolume(component)
        return whole.with_name(f"{whole.stem}_half{half}{whole.suffix}")

    @property
    def rank(self) -> Path:
        """Table of the components that the half-sets were tried with, and which of them hold on held-out particles."""
        return self.path / "rank.csv"

    @property
    def eigenvalues(self) -> Path:
        """Table of eigenvalues."""
        return self.path / "eigenvalues.csv"

    @property
    def latents(self) -> Path:
        """Latent coordinates, their precision, and contrasts."""
        return self.path / "latents.npz"

    @property
    def particles(self) -> Path:
        """The input particles, in input order."""
        return self.path / "particles.star"

    @property
    def noise(self) -> Path:
        """Table of the noise spectrum."""
        return self.path / "noise.csv"

    @property
    def fsc(self) -> Path:
        """Table of half-set Fourier shell correlations."""
        return self.path / "fsc.csv"

    @property
    def metrics(self) -> Path:
        """Table of the progress of the optimisation."""
        return self.path / "metrics.csv"

    @property
    def bad_images(self) -> Path:
        """Table of the images that could not be used; only if there are several."""
        return self.path / "bad_images.csv"

    @property
    def log(self) -> Path:
        """Messages."""
        return self.path / "log.txt"

    @property
    def checkpoint(self) -> Path:
        """Folder of what a resumed run needs."""
        return self.path / "checkpoint"

    @property
    def analysis(self) -> Path:
        """Folder of what `analyze` makes."""
        return self.path / "analysis"

    @property
    def analysis_status(self) -> Path:
        """State and progress of `analyze`."""
        return status_path(self.analysis)

    @property
    def embedding(self) -> Path:
        """Table of the two-dimensional embedding."""
        return self.analysis / "embedding.csv"

    @property
    def clusters(self) -> Path:
        """Table of the cluster of each particle."""
        return self.analysis / "clusters.csv"

    @property
    def centres(self) -> Path:
        """Table of the cluster centres."""
        return self.analysis / "centres.csv"

    @property
    def selections(self) -> Path:
        """Folder of the selections that were made in the explorer."""
        return self.analysis / "selections"

    def selection(self, name: str) -> Path:
        """What a selection is."""
        return self.selections / f"{name}.json"

    def selection_table(self, name: str) -> Path:
        """Rows or coordinates of a selection."""
        return self.selections / f"{name}.csv"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.analysis / "figures"

    def figure(self, name: str) -> Path:
        """One of the figures, `FIGURE_NAMES`."""
        if name not in FIGURE_NAMES:
            raise ValueError(f"there is no figure {name!r}; there are {', '.join(FIGURE_NAMES)}")
        return self.figures / f"{name}.png"

    @property
    def report(self) -> Path:
        """Self-contained report."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """File that says which process works here."""
        return self.path / "lock"

    def has_name_for(self, path: Path) -> bool:
        """Whether a path below the folder has the name of something that a run makes."""
        forms = _OTHER_FILES.get(path.parent.relative_to(self.path).as_posix(), ())
        return path in self._named_files() or any(fnmatch(path.name, form) for form in forms)

    def _named_files(self) -> set[Path]:
        properties = [name for name, member in vars(RunDir).items() if isinstance(member, property)]
        return {getattr(self, name) for name in properties} | {self.figure(name) for name in FIGURE_NAMES}
