"""`abinitio`: from images without poses to a structure, and a run that other commands go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from solvar_engine.abinitio.moments.encoder import save_encoder
from solvar_engine.abinitio.moments.search import find_structure_by_moments
from solvar_engine.abinitio.semi_amortized.encoder import PoseEncoder
from solvar_engine.abinitio.semi_amortized.search import find_structure_by_semi_amortized
from solvar_engine.abinitio.sgd.search import find_structure_by_sgd
from solvar_engine.abinitio.structure import Structure, find_structure
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path
from solvar_engine.contract.params import AbinitioParams, FitParams
from solvar_engine.contract.params.abinitio import EM, MOMENTS, SEMI_AMORTIZED, SGD
from solvar_engine.contract.results import append_metrics
from solvar_engine.contract.run import ALREADY_FINISHED, NEW, RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.faults import BadImages
from solvar_engine.data.pixel_faults import sentences_of
from solvar_engine.data.preprocess import cache_bytes, prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.jobs import run_fit
from solvar_engine.jobs.abinitio.checkpoint import TensorFolder
from solvar_engine.jobs.abinitio.inputs import AbinitioInputs, read_inputs
from solvar_engine.jobs.abinitio.results import Search, usable, write_search
from solvar_engine.jobs.decisions import add_cautions, record_cautions
from solvar_engine.jobs.fit.inputs import scratch_folder
from solvar_engine.jobs.running.devices import compute_device, device_name
from solvar_engine.jobs.running.log import run_log
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.running.tracking import tracked
from solvar_engine.projectors.options import SliceOptions

logger = logging.getLogger(__name__)

_METHODS: dict[str, Callable[..., Structure]] = {
    EM: find_structure,
    SGD: find_structure_by_sgd,
    MOMENTS: find_structure_by_moments,
}
_READING_STEPS, _SEARCH_STEPS, _WRITING_STEPS = 10, 100, 5


def run(params: AbinitioParams, find: Callable[..., Structure] | None = None) -> None:
    """Find the structure and the poses of a set of particles, and write the run directory.

    That there is no structure is a result, which is said; no volume is written then.

    Parameters
    ----------
    params : AbinitioParams
    find : callable, optional
        The search, as `find_structure`; without it, that of ``--method``.

    Raises
    ------
    UserError
        For a mistake in the options or the data.
    """
    params.validate()
    run_dir = RunDir(params.output)
    find = _method(params, run_dir) if find is None else find
    with prepared(run_dir, params, params.resume) as start:
        if start == ALREADY_FINISHED:
            logger.info("%s is finished: nothing to do", run_dir.path)
        else:
            with tracked(StatusTracker(run_dir.status, params.command)) as status, run_log(run_dir.log):
                inputs = read_inputs(params)
                if start == NEW:
                    resolved = {
                        "box": inputs.box_size,
                        "pixel_size": inputs.stack.pixel_size * inputs.stack.box_size / inputs.box_size,
                        "device": device_name(compute_device(params)),
                    }
                    write_params(run_dir, params, inputs=[*inputs.stack.files], resolved=resolved)
                    record_cautions(run_dir, inputs.stack.cautions)
                with closing(Progress(status, _READING_STEPS + _SEARCH_STEPS + _WRITING_STEPS)) as progress:
                    with logging_redirect_tqdm([logging.getLogger("solvar_engine")]):
                        progress.finish(_search(params, run_dir, inputs, progress, find))
    if params.then_fit is not None and run_dir.mean.exists():
        run_fit.run(fit_params(params, run_dir))


def _method(params: AbinitioParams, run_dir: RunDir) -> Callable[..., Structure]:
    """Search of ``--method``; where a network learns in it, that is kept with the results."""
    if params.method != SEMI_AMORTIZED:
        return _METHODS[params.method]

    def keep_encoder(encoder: PoseEncoder) -> None:
        with atomic_path(run_dir.pose_encoder) as temporary:
            save_encoder(encoder, temporary, {"particles": params.particles, "seed": params.seed})

    return partial(find_structure_by_semi_amortized, keep_encoder=keep_encoder)


def fit_params(params: AbinitioParams, run_dir: RunDir) -> FitParams:
    """Options of the fit that goes on from the poses found."""
    assert params.then_fit is not None
    return FitParams(
        particles=str(run_dir.particles_cs if run_dir.particles_cs.exists() else run_dir.particles),
        output=str(run_dir.fit),
        rank=params.then_fit,
        symmetry=params.symmetry,
        refine_poses=True,
        still_frame=params.symmetry.upper() == "C1",
        # images are where they were; names in the run's particles are those of the input
        root=params.root or _folder_of_stacks(params, run_dir),
        skip_bad_images=params.skip_bad_images,
        cache_mb=params.cache_mb,
        scratch=params.scratch,
        threads=params.threads,
        device=params.device,
        seed=params.seed,
        debug=params.debug,
        resume=True,
    )


def _folder_of_stacks(params: AbinitioParams, run_dir: RunDir) -> str | None:
    """Folder of the input, if relative paths start from there; None if they do from the current one."""
    first = StarFile.read(run_dir.particles).particles.text("rlnImageName")[0].rpartition("@")[2]
    folder = Path(params.particles).parent
    folders = [folder, *folder.absolute().parents] if run_dir.particles_cs.exists() else [folder]
    return next((str(folder) for folder in folders if (folder / first).is_file()), None)


def _search(
    params: AbinitioParams, run_dir: RunDir, inputs: AbinitioInputs, progress: Progress, find: Callable[..., Structure]
) -> str:
    images = _read_images(params, run_dir, inputs, progress)
    options = SliceOptions(device=compute_device(params))

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        progress.stage(stage)
        if shell is not None:
            row = {"stage": stage, "shell_max": shell, "seconds": round(progress.seconds(), 3)}
            append_metrics(run_dir.metrics, row)
        progress.to(_READING_STEPS + int(share * _SEARCH_STEPS))
        if is_caution:
            add_cautions(run_dir, [sentence])
        elif sentence:
            logger.info("%s: %s", stage, sentence)

    try:
        structure = find(
            images, inputs.options, report, TensorFolder(run_dir.checkpoint), slices=options, is_usable=usable(images)
        )
    except ValueError as error:
        raise UserError(f"{params.particles}: {error}.") from error
    progress.to(_READING_STEPS + _SEARCH_STEPS)
    progress.stage("writing results")
    return write_search(Search(run_dir, inputs, images, structure, options))


def _read_images(
    params: AbinitioParams, run_dir: RunDir, inputs: AbinitioInputs, progress: Progress
) -> PreparedParticles:
    stack, box_size = inputs.stack, inputs.box_size
    logger.info(
        "%d particles of %d px, %.3f Angstrom/px, working box %d px",
        len(stack), stack.box_size, stack.pixel_size, box_size,
    )  # fmt: skip
    progress.stage("reading images")
    run_dir.checkpoint.mkdir(exist_ok=True)
    scratch = run_dir.checkpoint if params.scratch is None else scratch_folder(params.scratch)
    images = prepare_particles(
        stack,
        box_size,
        scratch=None if cache_bytes(len(stack), box_size) <= params.cache_mb * 1e6 else scratch,
        progress=lambda done, total: progress.to(done * _READING_STEPS // total),
        bad_images=BadImages(params.skip_bad_images, run_dir.bad_images),
        device=compute_device(params),
    )
    add_cautions(run_dir, list(sentences_of(images, stack.path)))
    return images
