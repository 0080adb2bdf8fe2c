"""Kernel sums against sums over one kernel at a time, and the pieces that volumes of states are made with."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from solvar_engine.imaging.fourier import ft_to_volume, images_to_disk, low_pass, volume_radius, volume_to_ft
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.filtering import corrected_fsc, local_filter, local_fsc, local_resolution
from solvar_engine.reconstruction.kernel_blending import agreement_gain, blend_kernels
from solvar_engine.reconstruction.kernel_regression import (
    KernelSums,
    Staircase,
    accumulate_kernels,
    back_project,
    ball_overlap,
    half_set_estimates,
    levelled_estimate,
)
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from solvar_engine.reconstruction.windows import LocalWindows
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise, relative_error, simulate

BOX = 24
WIDTHS = torch.tensor([0.5, 0.9, 1.6])
BALL = sphere_mask(BOX, 8, 2)


@pytest.fixture(scope="module")
def particles() -> MemorySource:
    contrast = 0.8 + 0.4 * torch.rand(150, generator=torch.Generator().manual_seed(3))
    return simulate(LinearPhantom.create(1), 150, BOX, contrast=contrast).source


@pytest.fixture(scope="module")
def distance() -> torch.Tensor:
    return 3.0 * torch.rand(150, generator=torch.Generator().manual_seed(4))


def weighted(source: MemorySource, weight: torch.Tensor) -> MemorySource:
    """Give each image a weight: its precision is multiplied by it."""
    root = weight.sqrt()[:, None]
    return dataclasses.replace(source, images=source.images * root, ctf=source.ctf * root)


def accumulate(source: MemorySource, index: torch.Tensor, distance: torch.Tensor, widths: torch.Tensor) -> KernelSums:
    return accumulate_kernels(source, index, distance, widths, back_project(source, index))


def test_images_weigh_as_their_ring_does_on_average(distance):
    stairs = Staircase.create(distance, WIDTHS)
    limits = [0.0, *(WIDTHS**2).tolist(), float("inf")]
    for kernel, width in enumerate(WIDTHS):
        for ring in range(4):
            members = (limits[ring] <= distance) & (distance < limits[ring + 1])
            expected = (1 - distance[members] / width**2).mean() if ring <= kernel else torch.zeros(())
            torch.testing.assert_close(stairs.of_images()[kernel, members].float(), expected.expand(int(members.sum())))
    assert (stairs.of_images()[-1] == 1).all()


def test_nested_sums_are_those_of_each_kernel_alone(particles, distance):
    sums = accumulate(particles, particles.everyone, distance, WIDTHS)
    delta = torch.zeros(BOX, BOX, BOX)
    delta[(BOX // 2,) * 3] = 1.0
    weights = Staircase.create(distance, WIDTHS).of_images().float()
    assert len(sums) == len(weights) == len(WIDTHS) + 1
    for kernel, weight in enumerate(weights):
        alone = accumulate_normal_equations(weighted(particles, weight), particles.everyone)
        ball = sphere_mask(BOX, 0.5 * BOX - 2, 2)
        assert relative_error(sums.right_side[kernel], volume_to_ft(alone.right_side * ball)) < 1e-4
        kernel_of_operator = alone.apply(delta) * BOX
        raw, smooth = (volume_to_ft(kernel_of_operator * w).real for w in (torch.ones(()), ball_overlap(BOX)))
        density = torch.maximum(raw, smooth).clamp_min(0)
        assert relative_error(sums.density[kernel], density * (volume_radius(BOX) <= 11)) < 1e-4


def test_bandwidths_must_ascend(particles, distance):
    for widths in ([1.0, 0.5], [0.0, 1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match="bandwidths"):
            Staircase.create(distance, torch.tensor(widths))
    with pytest.raises(ValueError, match="149 distances"):
        accumulate(particles, particles.everyone, distance[:-1], WIDTHS)


def test_autocorrelation_of_a_ball():
    box = 32
    ball = sphere_mask(box, box / 4, 0.5)
    spectrum = volume_to_ft(ball)
    expected = ft_to_volume((spectrum.abs() ** 2).to(spectrum.dtype), box)
    assert (ball_overlap(box) - expected / expected.max()).abs().max() < 0.03
    assert float(volume_to_ft(ball_overlap(box)).real.min()) > -1e-3


def test_levelled_estimate_keeps_the_average_of_each_shell():
    density = 1.0 + 3.0 * noise(BOX, BOX, BOX // 2 + 1).abs()
    precision = torch.linspace(0.1, 30.0, (BOX - 1) // 2 + 1)
    level = levelled_estimate(density.to(torch.complex64), density, precision).real
    found = radial_average(level, BOX)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-4, atol=0)


def flat_volume() -> torch.Tensor:
    """A ball of white noise: like what a model leaves of a volume, and unlike a molecule, no shell outshines others."""
    return low_pass(noise(BOX, BOX, BOX, seed=7) * BALL, (BOX - 1) // 2)


def images_of(source: MemorySource, volume: torch.Tensor, amount: torch.Tensor) -> MemorySource:
    """Images of a volume in some amount (n,) each, with noise of unit variance."""
    projector = create_projector(BOX, source.disk, SliceOptions())
    slices = projector.project(projector.to_grid(volume[None]), source.rotation, source.ctf)[..., 0]
    white = images_to_disk(noise(len(source), BOX, BOX, seed=8), source.disk)
    return dataclasses.replace(source, images=amount[:, None] * slices + white, contrast=torch.ones(len(source)))


def test_estimate_recovers_a_volume(particles):
    truth = flat_volume()
    source = images_of(particles, truth, torch.full((len(particles),), 5.0))
    halves = [
        accumulate(source, source.everyone[start::2], torch.zeros(75), torch.tensor([1.0])) for start in (0, 1)
    ]
    zero = torch.zeros(BOX, BOX, BOX // 2 + 1, dtype=torch.complex64)
    for estimate in half_set_estimates((halves[0], halves[1]), (zero, zero), 1, BALL):
        # 75 images with as much noise as signal in the last shells
        assert float(fsc(ft_to_volume(estimate, BOX), truth, BALL)[2:9].min()) > 0.9


def test_offsets_are_added():
    density, offset = torch.ones(1, BOX, BOX, BOX // 2 + 1), volume_to_ft(noise(BOX, BOX, BOX))
    empty = KernelSums(torch.zeros_like(density, dtype=torch.complex64), density)
    first, second = half_set_estimates((empty, empty), (offset, 2 * offset), 0, None)
    torch.testing.assert_close(first, offset)
    torch.testing.assert_close(second, 2 * offset)


@pytest.mark.parametrize("box_size", [24, 31, 40])
def test_windows_give_back_what_they_took(box_size):
    windows = LocalWindows.create(box_size)
    volume = noise(box_size, box_size, box_size)
    torch.testing.assert_close(windows.synthesise(windows.analyse(volume)), volume, atol=1e-4, rtol=1e-4)
    blocks = noise(windows.count, windows.size, windows.size, windows.size, seed=1)
    left, right = torch.sum(windows.cut(volume) * blocks), torch.sum(volume * windows.add_up(blocks))
    assert float(left) == pytest.approx(float(right), rel=1e-3, abs=1e-2)
    values = torch.full((windows.count,), 3.0)
    torch.testing.assert_close(windows.interpolate(values), torch.full((box_size,) * 3, 3.0))


def test_windows_on_a_mask_are_those_that_touch_it_and_cover_it():
    box = 48
    mask = torch.zeros(box, box, box)
    mask[20:30, 4:12, 30:40] = 1.0
    windows, everywhere = LocalWindows.create(box, mask), LocalWindows.create(box)
    assert 8 <= windows.count < everywhere.count // 4
    assert (windows.weight_of(mask) > 0).all()
    volume = noise(box, box, box)
    back = windows.synthesise(windows.analyse(volume))
    torch.testing.assert_close(back * mask, volume * mask, atol=1e-4, rtol=1e-4)
    field = windows.interpolate(torch.full((windows.count,), 3.0), outside=7.0)
    assert float((field * mask).max()) == pytest.approx(3.0) and float(field[-1, -1, -1]) == 7.0


def test_local_filter_keeps_signal_where_it_is_and_removes_noise_where_it_is_not():
    box = 48
    windows = LocalWindows.create(box)
    left = torch.zeros(box, box, box)
    left[:, :, :20] = 1.0
    signal = 1.2 * low_pass(noise(box, box, box), 12) * left
    halves = [signal + noise(box, box, box, seed=seed) for seed in (1, 2)]
    correlation = local_fsc(halves[0], halves[1], windows)
    average = 0.5 * (halves[0] + halves[1])
    filtered = local_filter(average, correlation, windows)
    assert relative_error(filtered[:, :, :14], signal[:, :, :14]) < 0.8 * relative_error(
        average[:, :, :14], signal[:, :, :14]
    )
    assert float(filtered[:, :, 34:].std()) < 0.25 * float(average[:, :, 34:].std())
    resolution = local_resolution(correlation, windows, 2.0, 0.143)
    # signal ends at shell 12 of 48 px of 2 Angstrom
    assert float(resolution[:, :, 8].median()) == pytest.approx(8.0, rel=0.2)
    assert float(resolution[:, :, 40].median()) > 12.0


def test_mask_does_not_make_noise_correlate():
    box = 40
    generator = torch.Generator().manual_seed(0)
    mask = (sphere_mask(box, 6, 0.1) > 0.5).float()  # as sharp as can be
    signal = low_pass(30 * noise(box, box, box), 5)
    halves = [signal + noise(box, box, box, seed=seed) for seed in (1, 2)]
    beyond = slice(10, 18)
    assert float(fsc(halves[0], halves[1], mask)[beyond].mean()) > 0.5
    assert abs(float(corrected_fsc(halves[0], halves[1], mask, generator)[beyond].mean())) < 0.2


def test_gain_of_details_is_that_of_their_signal():
    box = 48
    windows = LocalWindows.create(box)
    signal = noise(box, box, box)
    details = [signal + noise(box, box, box, seed=seed) for seed in (1, 2)]
    inner = windows.weight_of(sphere_mask(box, 10)) > 0.5
    # signal and noise of one half are equally strong: F = 1/2, gain of the average 2/3
    found = agreement_gain(*map(windows.analyse, details), windows)
    assert float(found[inner, 3:].mean()) == pytest.approx(2 / 3, abs=0.08)
    alone = agreement_gain(*(windows.analyse(noise(box, box, box, seed=seed)) for seed in (3, 4)), windows)
    assert float(alone[inner, 1:].mean()) < 0.08


def test_blend_is_better_than_any_kernel_of_its_own(particles):
    """Half of the ball varies with z, the other half is the same in all images."""
    count = len(particles)
    z = torch.linspace(-1, 1, count)[torch.randperm(count, generator=torch.Generator().manual_seed(5))]
    volume, left = flat_volume(), torch.zeros(BOX, BOX, BOX)
    left[:, :, : BOX // 2] = 1.0
    moving, still = low_pass(volume * left, 11), low_pass(volume * (1 - left), 11)
    both = (images_of(particles, moving, 4 * z).images, images_of(particles, still, torch.full((count,), 4.0)).images)
    source = images_of(particles, volume, torch.zeros(count))
    source = dataclasses.replace(source, images=both[0] + both[1] - source.images)
    halves = [
        accumulate(
            source, source.everyone[start::2], (z[start::2] - 0.8) ** 2, torch.tensor([0.25, 0.6, 1.2])
        )
        for start in (0, 1)
    ]
    zero = torch.zeros(BOX, BOX, BOX // 2 + 1, dtype=torch.complex64)
    windows = LocalWindows.create(BOX)
    blend = blend_kernels((halves[0], halves[1]), (zero, zero), windows, BALL)
    torch.testing.assert_close(blend.shares.sum(dim=0), torch.ones_like(blend.shares[0]))
    truth = 4 * (0.8 * moving + still)

    def quality(half1: torch.Tensor, half2: torch.Tensor) -> float:
        return float(fsc(half1 + half2, truth, BALL)[2:].mean())

    estimates = [half_set_estimates((halves[0], halves[1]), (zero, zero), kernel, BALL) for kernel in range(4)]
    alone = [quality(ft_to_volume(first, BOX), ft_to_volume(second, BOX)) for first, second in estimates]
    assert quality(blend.half1, blend.half2) > max(alone)
