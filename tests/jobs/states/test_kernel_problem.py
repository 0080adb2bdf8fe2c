"""What `reconstruct` makes volumes from: each half-set's own filtered mean and components, and images less these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.contract.params import FitParams, ReconstructParams
from solvar_engine.contract.results import Latents, write_eigenvalues, write_fsc, write_latents, write_noise
from solvar_engine.contract.run import RunDir, write_params
from solvar_engine.contract.star import StarFile, StarTable, rotation_to_relion
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.metadata import ANGLE_COLUMNS, SHIFT_COLUMNS
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.shells import shell_index_volume
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.states.kernel_problem import KernelProblem, set_up
from solvar_engine.jobs.states.latent_space import open_latent_space
from solvar_engine.reconstruction.kernel_regression import back_project
from tests.jobs.prepared import silent_progress
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

BOX, IMAGES, PIXEL_SIZE, STRENGTH = 16, 240, 4.0, 12.0
SHELLS = torch.arange(BOX // 2)
CORRELATION = (1.2 - 0.15 * SHELLS).clamp(-0.1, 1.0)  # of the mean's halves, per shell
MASK = sphere_mask(BOX, 5.5, 2.0)
PHANTOM = LinearPhantom.create(1, strength=0.4, atoms=20, sigma=0.09)


def filtered(half: Tensor) -> Tensor:
    """Every coefficient of shell s times F_s, inside the mask; plainly, with a full transform."""
    centred = torch.fft.fftn(torch.fft.ifftshift(half.double()))
    frequency = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = (frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2).sqrt().round().long()
    gain = torch.cat((CORRELATION.clamp(0, 1), torch.zeros(1)))[radius.clamp_max(len(CORRELATION))]
    return (torch.fft.fftshift(torch.fft.ifftn(centred * gain).real) * MASK).float()


@dataclass(frozen=True)
class Made:
    """A problem, and what its run holds of either half-set."""

    problem: KernelProblem
    means: tuple[Tensor, Tensor]
    components: tuple[Tensor, Tensor]
    contrast: Tensor
    z: Tensor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run by arithmetic, whose half-sets found a right and a wrong component, and images of its own means."""
    folder = tmp_path_factory.mktemp("kernel")
    disk = HalfDisk.create(BOX)
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(IMAGES, generator)
    z, contrast = noise(IMAGES, 1, seed=1), 1 + 0.3 * torch.rand(IMAGES, generator=generator)
    contrast /= contrast.mean()
    truth = PHANTOM.mean(BOX)
    means = (truth + 0.02 * noise(BOX, BOX, BOX, seed=2), truth + 0.02 * noise(BOX, BOX, BOX, seed=3))
    direction = PHANTOM.factors(BOX)
    size = float(direction.norm())
    wrong = LinearPhantom.create(1, atoms=20, sigma=0.09, seed=5).factors(BOX)
    wrong -= direction * (wrong * direction).sum() / size**2
    components = (direction / size, wrong / wrong.norm())
    signal = STRENGTH * contrast[:, None] * PHANTOM.slices(z, rotation, disk)
    images = disk_to_images(signal, disk, BOX) + noise(IMAGES, BOX, BOX, seed=4)
    particles = write_particles(folder, images, rotation)
    run = RunDir(folder / "run")
    run.eigenvolumes.mkdir(parents=True)
    for path, volume in (
        (run.mean, truth),
        (run.mask, MASK),
        (run.mean_half1, means[0]),
        (run.mean_half2, means[1]),
        (run.eigenvolume(1), components[0][0]),
        (run.half_eigenvolume(1, 1), components[0][0]),
        (run.half_eigenvolume(1, 2), components[1][0]),
    ):
        write_volume(path, Volume(volume, PIXEL_SIZE))
    write_run_tables(run, size**2)
    write_latents(run.latents, Latents(size * z.numpy(), np.ones((IMAGES, 1, 1)), contrast.numpy()))
    StarFile.read(particles).write(run.particles)
    write_params(run, FitParams(particles=str(particles), output=str(run.path), rank=1))
    StatusTracker(run.status, "fit").update(state="finished", stage="", step=1, steps=1)
    params = ReconstructParams(run=str(run.path), output=str(folder / "out"), clusters=2)
    problem = set_up(params, run, open_latent_space(run), 1, folder, silent_progress())
    return Made(problem, means, components, contrast, size * z)


def write_particles(folder: Path, images: Tensor, rotation: Tensor) -> Path:
    """Write images that show all contrast at every frequency; the halves are those of odd and even numbers."""
    with StackWriter(folder / "particles.mrcs", PIXEL_SIZE) as stack:
        stack.append(images.numpy())
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [0.0],
        "rlnAmplitudeContrast": [1.0],
        "rlnImagePixelSize": [PIXEL_SIZE],
    }
    angles = dict(zip(ANGLE_COLUMNS, rotation_to_relion(rotation.double().numpy()), strict=True))
    particles = {
        "rlnImageName": [f"{number:06d}@particles.mrcs" for number in range(1, IMAGES + 1)],
        "rlnOpticsGroup": np.ones(IMAGES, dtype=int),
        **dict.fromkeys(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", *SHIFT_COLUMNS), np.zeros(IMAGES)),
        **angles,
        "rlnRandomSubset": np.arange(IMAGES) % 2 + 1,
    }
    path = folder / "particles.star"
    StarFile((StarTable.create("optics", optics), StarTable.create("particles", particles))).write(path)
    return path


def write_run_tables(run: RunDir, eigenvalue: float) -> None:
    one = np.ones(1)
    write_eigenvalues(
        run.eigenvalues,
        {
            "component": [1],
            "eigenvalue": eigenvalue * one,
            "eigenvalue_in_sample": eigenvalue * one,
            "fraction": one,
            "half_set_agreement": one,
            "nuisance_overlap": 0 * one,
            "label": [""],
        },
    )
    frequency = SHELLS.numpy() / (BOX * PIXEL_SIZE)
    curves = {"fsc_mean": CORRELATION.numpy(), "fsc_covariance": CORRELATION.numpy()}
    write_fsc(run.fsc, {"shell": SHELLS.numpy(), "frequency": frequency, **curves})
    constant = {"noise_variance": np.ones(len(SHELLS)), "group": np.ones(len(SHELLS), dtype=int)}
    write_noise(run.noise, {"shell": SHELLS.numpy(), "frequency": frequency, **constant})


def test_means_of_the_half_sets_are_filtered_by_their_correlation(made: Made) -> None:
    """Each its own, inside the mask, at the scale of the images; unfiltered ones would bring their noise along."""
    scales = []
    for model, mean in zip(made.problem.models, made.means, strict=True):
        expected = filtered(mean)
        scale = float((model.mean * expected).sum() / expected.square().sum())
        assert relative_error(model.mean / scale, expected) < 1e-4
        scales.append(scale)
    assert scales[0] == pytest.approx(scales[1], rel=1e-4)
    assert relative_error(made.problem.models[0].mean / scales[0], filtered(made.means[1])) > 0.01
    high = shell_index_volume(BOX) == len(SHELLS) - 1
    raw, kept = (volume_to_ft(volume)[high].abs().mean() for volume in (made.means[0], made.problem.models[0].mean))
    assert float(kept / scales[0]) < 0.3 * float(raw)


def test_mean_and_components_are_at_the_scale_of_the_images(made: Made) -> None:
    """By one factor, the one that fits the average of both filtered means to all images."""
    first, second = made.problem.models
    average = 0.5 * (filtered(made.means[0]) + filtered(made.means[1]))
    scale = float((first.mean + second.mean).norm() / (2 * average).norm())
    truth = PHANTOM.mean(BOX)
    best = float((truth * average).sum() / average.square().sum())
    assert scale == pytest.approx(STRENGTH * best, rel=0.05)
    for model, component in zip((first, second), made.components, strict=True):
        torch.testing.assert_close(model.components, scale * component, rtol=1e-3, atol=1e-3)
        assert model.variances.tolist() == pytest.approx([float(PHANTOM.factors(BOX).norm() ** 2)], rel=1e-5)


def test_particles_are_placed_and_relieved_by_the_model_of_their_own_half(made: Made) -> None:
    """The half-set that found the motion places its particles, and is left with noise; the other one cannot."""
    rows = made.problem.rows
    assert rows[0].tolist() == list(range(0, IMAGES, 2)) and rows[1].tolist() == list(range(1, IMAGES, 2))
    placed = [
        float(np.corrcoef(made.problem.z[half, 0], made.z[half, 0].numpy())[0, 1]) for half in (r.numpy() for r in rows)
    ]
    assert placed[0] > 0.95 > 0.8 > abs(placed[1])
    source = made.problem.source
    left = []
    for half in rows:
        (batch,) = source.batches(half, source.disk.prefix(3), len(half))
        left.append(float((batch.images[:, 1:].abs() ** 2).mean()))
    # less what is as slow as a background, which images have lost
    assert left[0] < 1.25 < 1.7 < left[1]


def test_precision_is_that_of_the_images_and_the_prior(made: Made) -> None:
    """At least the prior's; an image of twice the contrast knows four times as much."""
    precision = torch.from_numpy(made.problem.precision[:, 0, 0])
    prior = 1 / float(PHANTOM.factors(BOX).norm() ** 2)
    assert float(precision.min()) > prior
    own = torch.arange(0, IMAGES, 2)
    information = (precision[own] - prior) / made.contrast[own].double() ** 2
    fainter = made.contrast[own] < made.contrast[own].median()
    assert float(information[fainter].mean() / information[~fainter].mean()) == pytest.approx(1.0, abs=0.1)


def test_all_images_of_each_half_are_back_projected_once_relieved(made: Made) -> None:
    for half, sums in zip(made.problem.rows, made.problem.everything, strict=True):
        assert relative_error(sums, back_project(made.problem.source, half)) < 1e-5
