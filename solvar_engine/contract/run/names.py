"""The name of every file in the run directory of `fit` and `abinitio`.

Nothing else in the engine, and nothing in a graphical interface, spells these names.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from solvar_engine.contract.files import FileIn
from solvar_engine.contract.status import STATUS_NAME

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
    "search",
    "classes",
    "convergence",
)
"""Figures of `analyze`, in the order of the report; a run has those that it has data for."""

SEARCH_FIGURES = ("search", "classes")
"""Those that only a run of `abinitio` has."""

FILES_BEFORE_PARAMS = frozenset({"lock", "status.json", "log.txt"})
"""Names of what a run may hold that ended before it stored its options."""

FILES_BEFORE_START = FILES_BEFORE_PARAMS | {"params.json", "bad_images.csv", "checkpoint"}
"""Names of what a run may hold that ended before it had results to go on from."""

EXPLORER_PAGES = ".explorer-*.html"
"""Names of the files by which `explore` leads the browser to its page; they are gone when it is open."""

# what a run holds besides the files that `RunDir` has a name for, by folder
_OTHER_FILES = {
    ".": (EXPLORER_PAGES, "class_*.mrc", "class_*.star", "class_*.cs", "class_*.csg"),
    "eigenvolumes": ("eigenvolume_*.mrc",),
    "checkpoint": ("*.npz",),
    "analysis/selections": ("*.json", "*.csv"),
}


class RunDir:
    """Names of the files of one run; nothing is read or written.

    Examples
    --------
    >>> RunDir("run").eigenvolume(1).as_posix()
    'run/eigenvolumes/eigenvolume_001.mrc'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    params = FileIn("params.json", "Options in force, seed, versions, input files")
    status = FileIn(STATUS_NAME, "State and progress of the run")
    mean = FileIn("mean.mrc", "Mean volume at the working box")
    mean_half1 = FileIn("mean_half1.mrc", "Mean volume of the first half-set")
    mean_half2 = FileIn("mean_half2.mrc", "Mean volume of the second half-set")
    mask = FileIn("mask.mrc", "Soft mask in force; that of the mean")
    focus_mask = FileIn(
        "focus_mask.mrc", "Product of mask and focus mask, that of the eigenvolumes; only if it is not that of the mean"
    )
    eigenvolumes = FileIn("eigenvolumes", "Folder of the eigenvolumes")

    def eigenvolume(self, component: int) -> Path:
        """Eigenvolume of one component, numbered from 1."""
        if component < 1:
            raise ValueError(f"components are numbered from 1, got {component}")
        return self.eigenvolumes / f"eigenvolume_{component:03d}.mrc"

    def half_eigenvolume(self, component: int, half: int) -> Path:
        """What one half-set (1 or 2) alone makes of the eigenvolume of a component: volumes of states need it."""
        whole = self.eigenvolume(component)
        return whole.with_name(f"{whole.stem}_half{half}{whole.suffix}")

    def class_volume(self, number: int) -> Path:
        """Volume of a class, numbered from 1; of `abinitio` with several."""
        return self.path / f"class_{number}.mrc"

    def class_half(self, number: int, half: int) -> Path:
        """Half-map 1 or 2 of a class."""
        return self.path / f"class_{number}_half{half}.mrc"

    def class_particles(self, number: int) -> Path:
        """Particles of a class."""
        return self.path / f"class_{number}.star"

    fit = FileIn("fit", "Folder of the fit that went on from the poses of `abinitio`, a run of its own")
    rank = FileIn("rank.csv", "Table of the components that were tried, and which of them hold on held-out particles")
    eigenvalues = FileIn("eigenvalues.csv", "Table of eigenvalues")
    latents = FileIn("latents.npz", "Latent coordinates, their precision, and contrasts")
    density = FileIn("density.csv", "Density of the particles in latent space")
    particles = FileIn("particles.star", "The input particles, in input order")
    particles_cs = FileIn("particles.cs", "The same for cryoSPARC; only of particles that came in a .cs file")
    particles_csg = FileIn("particles.csg", "With this file cryoSPARC imports particles.cs")
    pose_encoder = FileIn(
        "pose_encoder.safetensors",
        "Weights of the network that named poses; only of `abinitio --method semi-amortized`",
    )
    noise = FileIn("noise.csv", "Table of the noise spectrum")
    noise_ratio = FileIn(
        "noise_of_micrographs.npz", "Noise of each micrograph over that of its optics group; only if they are known"
    )
    fsc = FileIn("fsc.csv", "Table of half-set Fourier shell correlations")
    metrics = FileIn("metrics.csv", "Table of the progress of the optimisation")
    bad_images = FileIn("bad_images.csv", "Table of the images that could not be used; only if there are several")
    log = FileIn("log.txt", "Messages")
    checkpoint = FileIn("checkpoint", "Folder of what a resumed run needs")
    analysis = FileIn("analysis", "Folder of what `analyze` makes")
    analysis_status = FileIn(f"analysis/{STATUS_NAME}", "State and progress of `analyze`")
    embedding = FileIn("analysis/embedding.csv", "Table of the two-dimensional embedding")
    clusters = FileIn("analysis/clusters.csv", "Table of the cluster of each particle")
    centres = FileIn("analysis/centres.csv", "Table of the cluster centres")
    selections = FileIn("analysis/selections", "Folder of the selections that were made in the explorer")

    def selection(self, name: str) -> Path:
        """What a selection is."""
        return self.selections / f"{name}.json"

    def selection_table(self, name: str) -> Path:
        """Rows or coordinates of a selection."""
        return self.selections / f"{name}.csv"

    figures = FileIn("analysis/figures", "Folder of the figures")

    def figure(self, name: str) -> Path:
        """One of the figures, `FIGURE_NAMES`."""
        if name not in FIGURE_NAMES:
            raise ValueError(f"there is no figure {name!r}; there are {', '.join(FIGURE_NAMES)}")
        return self.figures / f"{name}.png"

    report = FileIn("report.html", "Self-contained report")
    lock = FileIn("lock", "File that says which process works here")

    def has_name_for(self, path: Path) -> bool:
        """Whether a path below the folder has the name of something that a run makes."""
        if self.fit in path.parents:
            return RunDir(self.fit).has_name_for(path)
        forms = _OTHER_FILES.get(path.parent.relative_to(self.path).as_posix(), ())
        return path in self._named_files() or any(fnmatch(path.name, form) for form in forms)

    def _named_files(self) -> set[Path]:
        files = [name for name, member in vars(RunDir).items() if isinstance(member, FileIn)]
        return {getattr(self, name) for name in files} | {self.figure(name) for name in FIGURE_NAMES}
