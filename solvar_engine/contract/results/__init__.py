"""The results of a run and of its states: names of columns, and the only functions that write and read them."""

from solvar_engine.contract.results.analysis import (
    CLUSTERS_COLUMNS,
    EMBEDDING_COLUMNS,
    read_centres,
    read_clusters,
    read_embedding,
    write_centres,
    write_clusters,
    write_embedding,
)
from solvar_engine.contract.results.components import (
    DOUBTFUL_POSES,
    EIGENVALUE_COLUMNS,
    NOT_REPRODUCIBLE,
    NUISANCE,
    OVERFIT,
    RANK_COLUMNS,
    SLOW,
    Candidates,
    Components,
    read_candidates,
    read_components,
    write_eigenvalues,
    write_rank,
)
from solvar_engine.contract.results.density import Density, read_density, write_density
from solvar_engine.contract.results.images import (
    CLASS_NUMBER,
    CONTRAST,
    CONTRAST_STD,
    GREY_SCALE,
    HALF_SET,
    IMAGE_COLUMNS,
    LOG_LIKELIHOOD,
    OTHER_FRAME,
    OUTLIER,
    POSE_CHANGE_COLUMNS,
    RANDOM_SUBSET,
    ROTATION_STD,
    SHIFT_STD,
    ImageResults,
    PoseChanges,
    image_results,
    read_images,
)
from solvar_engine.contract.results.latents import Latents, read_latents, write_latents
from solvar_engine.contract.results.reach import Reach, read_reach
from solvar_engine.contract.results.spectra import (
    FSC_COLUMNS,
    FSC_THRESHOLD,
    METRICS_COLUMNS,
    NOISE_COLUMNS,
    append_metrics,
    curves_by_stage,
    read_fsc,
    read_metrics,
    read_noise,
    read_noise_ratio,
    resolution_at_threshold,
    write_fsc,
    write_noise,
    write_noise_ratio,
)
from solvar_engine.contract.results.states import (
    EXTRAPOLATED,
    StateFolder,
    StateTable,
    is_limit,
    read_named_points,
    read_owners,
    read_states,
    write_owners,
    write_points,
    write_states,
)
from solvar_engine.contract.results.structure import (
    FoundStructure,
    read_structure,
    refuse_without_structure,
    structure_of,
    write_structure,
)
from solvar_engine.contract.results.tables import Table
