"""`fit`: from refined particles to eigenvolumes and latent coordinates."""

from __future__ import annotations

import logging
from contextlib import suppress

import torch
from torch import Tensor
from tqdm.contrib.logging import logging_redirect_tqdm

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import NOT_REPRODUCIBLE, append_metrics
from solvar_engine.contract.run import ALREADY_FINISHED, NEW, RunDir
from solvar_engine.contract.status import FAILED, FINISHED
from solvar_engine.data.noise import ResidualNoise
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.bands import ProjectorOptions, change_box
from solvar_engine.estimation.components import Components, find_components, latent_coordinates
from solvar_engine.estimation.covariance import (
    CovarianceProblem,
    FullSetState,
    HalfSetState,
    first_band_units,
    fit_full_set,
    fit_half_sets,
    full_set_epochs,
    half_set_units,
)
from solvar_engine.estimation.heldout import collect_statistics
from solvar_engine.estimation.nuisance import nuisance_overlap
from solvar_engine.estimation.regularization import covariance_fsc
from solvar_engine.estimation.residuals import residual_power
from solvar_engine.imaging.masks import automatic_mask, sphere_mask
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.fit_checkpoint import Checkpoint
from solvar_engine.jobs.fit_inputs import (
    open_particles,
    read_mask,
    scratch_folder,
    split_halves,
    working_box,
)
from solvar_engine.jobs.fit_outputs import (
    OutputScale,
    write_components,
    write_mean,
    write_particles,
    write_spectra,
)
from solvar_engine.jobs.fit_plan import plan_fit, require_disk
from solvar_engine.jobs.progress import Progress
from solvar_engine.jobs.run_log import describe, run_log
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean
from solvar_engine.reconstruction.normal_equations import NormalEquations, accumulate_normal_equations

logger = logging.getLogger(__name__)

_NOISE_PARTICLES = 5_000
_HELD_OUT_PARTICLES = 50_000
_PREPARE_STEPS = 10


def run(params: FitParams) -> None:
    """Fit the covariance of a set of particles and write the run directory.

    Parameters
    ----------
    params : FitParams

    Raises
    ------
    UserError
        For a mistake in the options or the data.
    """
    params.validate()
    run_dir = RunDir(params.output)
    # Asked first, because the images of a finished run may have been moved away.
    if params.resume and run_dir.is_finished() and run_dir.prepare(params, resume=True) == ALREADY_FINISHED:
        logger.info("%s is finished: nothing to do", run_dir.path)
        return
    with run_log() as log:
        stack = open_particles(params)
        box_size = working_box(params, stack)
        mask = None if params.mask is None else read_mask(params.mask, stack, box_size)
        halves = split_halves(stack, params.seed)
        scratch_folder(params, run_dir.path)
        start = run_dir.prepare(params, params.resume)
        try:
            log.write_to(run_dir.log)
            inputs = [params.particles] + ([] if params.mask is None else [params.mask])
            if start == NEW:
                run_dir.write_params(params, inputs=inputs, resolved={"box": box_size})
            _Fit(params, run_dir, stack, box_size, mask, halves).run()
        finally:
            run_dir.release()


class _Fit:
    """The stages of one fit, in order; each reads what an earlier, interrupted run has saved."""

    def __init__(
        self,
        params: FitParams,
        run_dir: RunDir,
        stack: ParticleStack,
        box_size: int,
        mask: Tensor | None,
        halves: tuple[Tensor, Tensor],
    ) -> None:
        self._params = params
        self._run = run_dir
        self._stack = stack
        self._box_size = box_size
        self._given_mask = mask
        self._halves = halves
        self._options = ProjectorOptions(params.projector, params.oversampling)
        self._checkpoint = Checkpoint(run_dir.checkpoint)
        self._status = run_dir.track_status("fit")
        steps = _PREPARE_STEPS + len(half_set_units(box_size)) + len(full_set_epochs()) + 6
        self._progress = Progress(self._status, steps)

    def run(self) -> None:
        """Do all stages; the status file tells how it ended."""
        try:
            with logging_redirect_tqdm([logging.getLogger("solvar_engine")]):
                self._stages()
        except BaseException as error:
            with suppress(OSError):
                self._status.update(state=FAILED, message=describe(error))
            raise
        finally:
            self._progress.close()

    def _stages(self) -> None:
        source = self._prepare()
        source, mask = self._orient(source)
        source, half_state, mean, normal = self._fit_halves(source, mask)
        problem = self._problem(source, mean, mask, normal)
        full = self._fit_all(problem, half_state)
        components = self._measure_scale(problem, half_state, full)
        self._write(source, mask, mean, half_state, components, problem)

    # ---------------------------------------------------------------- images

    def _prepare(self) -> PreparedParticles:
        params, count = self._params, len(self._stack)
        plan = plan_fit(
            count,
            self._box_size,
            params.rank,
            params.oversampling,
            torch.get_num_threads(),
            params.cache_mb,
        )
        logger.info(
            "%d particles of %d px, %.3f Angstrom/px, working box %d px",
            count,
            self._stack.box_size,
            self._stack.pixel_size,
            self._box_size,
        )
        logger.info(plan.sentence())
        scratch = scratch_folder(params, self._run.checkpoint)
        require_disk(plan, self._run.path, scratch, count, self._box_size)
        self._progress.stage("reading images")
        first = self._progress.step
        source = prepare_particles(
            self._stack,
            self._box_size,
            scratch=None if plan.cache_in_memory else scratch,
            progress=lambda done, total: self._progress.to(first + done * _PREPARE_STEPS // total),
        )
        return source

    def _orient(self, source: PreparedParticles) -> tuple[PreparedParticles, Tensor]:
        """Settle the sign of the images and the mask, from a first mean."""
        saved = self._checkpoint.load("start")
        if saved is None:
            self._progress.stage("first mean")
            halves = self._normal_equations(source)
            estimate = estimate_mean(*halves)
            sign = self._sign(estimate.mean)
            mask = self._given_mask
            if mask is None:
                mask = self._automatic_mask(sign * estimate.mean, source.pixel_size)
            saved = {"sign": torch.tensor(sign), "mask": mask}
            self._checkpoint.save("start", **saved)
        self._progress.advance()
        return source.with_sign(float(saved["sign"])), saved["mask"]

    def _sign(self, mean: Tensor) -> float:
        choice = self._params.invert_contrast
        if choice != "auto":
            logger.info("Images are taken as they are" if choice == "no" else "Images are inverted, as asked for")
            return 1.0 if choice == "no" else -1.0
        inside = mean.double() * sphere_mask(mean.shape[-1], 0.42 * mean.shape[-1])
        # Density is sparse and of one sign: the third moment of the map tells which.
        skewness = float((inside**3).sum() / (inside**2).sum().clamp_min(1e-30) ** 1.5)
        if skewness < 0:
            logger.info("The molecule is dark in the images (skewness of the mean %.3g): they are inverted", skewness)
            return -1.0
        logger.info("The molecule is bright in the images (skewness of the mean %.3g)", skewness)
        return 1.0

    def _automatic_mask(self, mean: Tensor, pixel_size: float) -> Tensor:
        try:
            mask = automatic_mask(mean, pixel_size)
        except ValueError as error:
            raise UserError(f"{self._params.particles}: {error}.") from error
        logger.info("Automatic mask: %.1f %% of the box", 100 * float(mask.mean()))
        return mask

    def _normal_equations(self, source: PreparedParticles) -> tuple[NormalEquations, NormalEquations]:
        first, second = (
            accumulate_normal_equations(source, half, interpolation=self._params.projector)
            for half in self._halves
        )
        return first, second

    def _mean(self, source: PreparedParticles, mask: Tensor) -> tuple[MeanEstimate, NormalEquations]:
        first, second = self._normal_equations(source)
        return estimate_mean(first, second, mask), first + second

    def _problem(
        self, source: PreparedParticles, mean: MeanEstimate, mask: Tensor, normal: NormalEquations
    ) -> CovarianceProblem:
        return CovarianceProblem(
            source,
            self._halves,
            mean.mean * mask,
            mask,
            normal.density(),
            self._params.rank,
            self._params.seed,
            self._options,
        )

    # ------------------------------------------------------------- half-sets

    def _fit_halves(
        self, source: PreparedParticles, mask: Tensor
    ) -> tuple[PreparedParticles, HalfSetState, MeanEstimate, NormalEquations]:
        """March both half-sets to the full band, measuring the noise anew after the first band and at the end."""
        stops = (first_band_units(self._box_size), len(half_set_units(self._box_size)))
        state = self._checkpoint.load_halves()
        for number, stop in enumerate(stops):
            saved = self._checkpoint.load(f"noise_{number}")
            if saved is None:
                mean, normal = self._mean(source, mask)
                problem = self._problem(source, mean, mask, normal)
                for reached in fit_half_sets(problem, state, stop):
                    state = reached
                    self._checkpoint.save_halves(state)
                    self._report_halves(state)
                if state is None:
                    raise AssertionError("a band has at least one epoch")
                saved = {"noise": self._measure_noise(problem, state)}
                self._checkpoint.save(f"noise_{number}", **saved)
            source = source.with_noise(saved["noise"])
            self._progress.to(_PREPARE_STEPS + 2 + number + stop)
        mean, normal = self._mean(source, mask)
        if state is None:
            raise UserError(f"The checkpoint of {self._run.path} is incomplete: start again in a new folder.")
        return source, state, mean, normal

    def _report_halves(self, state: HalfSetState) -> None:
        unit = half_set_units(self._box_size)[state.done - 1]
        self._progress.stage(f"half-sets, shells to {unit.shell_max}")
        self._progress.advance()
        for half, objective in enumerate(state.objective, start=1):
            self._append_metrics(state.done, "half-sets", half, unit.shell_max, objective)

    def _append_metrics(self, iteration: int, stage: str, half: int | None, shell: int, objective: float) -> None:
        append_metrics(
            self._run.metrics,
            {
                "iteration": iteration,
                "stage": stage,
                "half": half,
                "shell_max": shell,
                "objective": objective,
                "seconds": round(self._progress.seconds(), 3),
            },
        )
        logger.info("%s, epoch %d, half %s: objective %.4f", stage, iteration, half or "both", objective)

    def _measure_noise(self, problem: CovarianceProblem, state: HalfSetState) -> Tensor:
        """Noise spectrum from the residuals of a sample of each half, under the factors of the other."""
        self._progress.stage("noise")
        source = self._source_of(problem)
        band = problem.band(source.disk.shell_max, 1.0)
        noise = ResidualNoise(source.noise_variance.shape[0], source.disk)
        for index, factors in zip(self._halves, reversed(state.factors), strict=True):
            sample = index[:: max(1, 2 * index.shape[0] // _NOISE_PARTICLES)]
            volumes = change_box(factors.volumes, band.box_size)
            for rows, power in residual_power(source, sample, band, volumes):
                noise.add(power, source.group[rows])
        return noise.update(source.noise_variance)

    @staticmethod
    def _source_of(problem: CovarianceProblem) -> PreparedParticles:
        source = problem.source
        if not isinstance(source, PreparedParticles):
            raise AssertionError("a fit reads prepared particles")
        return source

    # ---------------------------------------------------- all images, results

    def _fit_all(self, problem: CovarianceProblem, halves: HalfSetState) -> FullSetState:
        self._progress.stage("all particles")
        state = self._checkpoint.load_full()
        base = self._progress.step
        if state is not None:
            self._progress.to(base + state.done)
        for reached in fit_full_set(problem, halves, state):
            state = reached
            self._checkpoint.save_full(state)
            self._progress.to(base + state.done)
            self._append_metrics(state.done, "all particles", None, self._shell_max, state.objective)
        if state is None:
            raise AssertionError("the fit of all particles has at least one epoch")
        return state

    @property
    def _shell_max(self) -> int:
        return (self._box_size - 1) // 2

    def _measure_scale(
        self, problem: CovarianceProblem, halves: HalfSetState, full: FullSetState
    ) -> Components:
        """Scale each half's factors on the other half, and find the principal axes."""
        self._progress.stage("held-out scale")
        band = problem.band(self._shell_max, 1.0)
        first, second = (factors.volumes * problem.mask for factors in halves.factors)
        held_out = []
        for volumes, other in zip((first, second), reversed(problem.halves), strict=True):
            sample = other[:: max(1, other.shape[0] // _HELD_OUT_PARTICLES)]
            held_out.append(collect_statistics(problem.source, sample, band, volumes))
        self._progress.advance()
        return find_components(full.factors, (first, second), (held_out[0], held_out[1]), problem.mask)

    def _write(
        self,
        source: PreparedParticles,
        mask: Tensor,
        mean: MeanEstimate,
        halves: HalfSetState,
        components: Components,
        problem: CovarianceProblem,
    ) -> None:
        self._progress.stage("latent coordinates")
        count, rank = len(source), self._params.rank
        z = torch.empty(count, rank)
        precision = torch.empty(count, rank, rank)
        log_likelihood = torch.empty(count, dtype=torch.float64)
        band = problem.band(self._shell_max, 1.0)
        for batch in latent_coordinates(source, torch.arange(count), band, components):
            z[batch.index] = batch.z
            precision[batch.index] = batch.precision
            log_likelihood[batch.index] = batch.log_likelihood
        self._progress.advance()
        self._progress.stage("writing results")
        scale = OutputScale.of(source)
        write_mean(self._run, mean, mask, scale)
        overlap = nuisance_overlap(components.eigenvolumes, problem.mean)
        labels = write_components(self._run, components, overlap, scale)
        correlation = covariance_fsc(halves.factors[0].volumes, halves.factors[1].volumes)
        write_spectra(self._run, source, self._stack, mean.fsc, correlation)
        contrast = 1.0 / source.image_scale
        write_particles(
            self._run, self._stack, z, precision, contrast / contrast.mean(), log_likelihood, scale
        )
        self._summarise(source, mean, components, labels)
        self._progress.finish()
        self._status.update(state=FINISHED, stage="finished", message=self._summary)

    def _summarise(
        self, source: PreparedParticles, mean: MeanEstimate, components: Components, labels: list[str]
    ) -> None:
        resolution = resolution_at(mean.fsc, 0.143, source.box_size, source.pixel_size)
        reproducible = sum(label != NOT_REPRODUCIBLE for label in labels)
        self._summary = (
            f"{len(source)} particles, mean at {resolution:.1f} Angstrom, "
            f"{reproducible} of {len(labels)} components reproducible"
        )
        logger.info(self._summary)
        rows = zip(components.eigenvalues, components.agreement, components.likelihood_gain, labels, strict=True)
        for number, (value, agreement, gain, label) in enumerate(rows, start=1):
            logger.info(
                "component %d: eigenvalue %.4g, half-set agreement %.2f, held-out log-likelihood gain %.0f %s",
                number,
                value,
                agreement,
                gain,
                label,
            )
