"""The latent space of a run: a flat map of it, groups of particles, and paths through it.

Everything here works on plain NumPy arrays ``z`` of shape (n, r): row i holds the coordinates of particle i
in the basis of unit-norm eigenvolumes. In that basis the Euclidean distance between two particles is the
distance between their two volumes, so no column is ever rescaled.

Others use what is named here, and `distances` (from a point, counting how well each particle is placed); `density` and
`checks` serve the room itself.
"""

from __future__ import annotations

from solvar_engine.latent.clusters import NO_CLUSTER, Clusters, kmeans_clusters, mixture_clusters
from solvar_engine.latent.embedding2d import embed_2d
from solvar_engine.latent.neighbours import nearest_point
from solvar_engine.latent.trajectories import dense_path, resample_polyline
