"""Scales and signs of the signal in parts of a set, found from images whose true ones are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.grey_scales import find_grey_scales, scales_of_parts
from solvar_engine.estimation.judging.low_band import scale_evidence
from solvar_engine.estimation.judging.scale_steps import cut_at_steps
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, MemorySource, simulate

BOX, IMAGES = 12, 400
HALVES = (torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2))
PHANTOM = LinearPhantom.create(1, strength=0.2).scaled(6.0)


def images_of(scale: Tensor, phantom: LinearPhantom = PHANTOM) -> MemorySource:
    """Images whose signal has some scale (n,), which is not stated."""
    source = simulate(phantom, len(scale), BOX, contrast=scale).source
    return replace(source, contrast=torch.ones(len(scale)))


def parts(*sizes: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


@pytest.mark.parametrize("factor", [10.0, 1.5, 0.5, -1.0, -3.0])
@pytest.mark.parametrize("sizes", [(260, 140), (201, 199)])
def test_scale_and_sign_of_a_part_are_found(factor: float, sizes: tuple[int, int]) -> None:
    part = parts(*sizes)
    found = find_grey_scales(images_of(torch.tensor([1.0, factor])[part]), HALVES, part)
    assert float(found.scale[0]) == 1.0
    assert float(found.scale[1]) == pytest.approx(factor, rel=0.05)
    assert not bool(found.is_dark.any())


def test_more_noise_at_the_same_signal_is_another_scale_of_nothing() -> None:
    """Both whitened: what has twice the noise shows half the signal over half the transfer function."""
    part, source = parts(220, 180), images_of(torch.ones(IMAGES))
    noise = torch.randn(180, source.images.shape[1], dtype=torch.complex64, generator=torch.Generator().manual_seed(9))
    source.images[220:] = (source.images[220:] + 3**0.5 * noise) / 2
    source.ctf[220:] /= 2
    assert find_grey_scales(source, HALVES, part).scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("factor", [1000.0, 100.0, 0.001])
@pytest.mark.parametrize("sizes", [(260, 140), (140, 260), (40, 360)])
def test_grey_values_of_another_unit_are_no_weak_signal(factor: float, sizes: tuple[int, int]) -> None:
    """Signal and noise are as many times as strong: whitened, the transfer function alone tells."""
    part, source = parts(*sizes), images_of(torch.ones(IMAGES))
    source.ctf[part == 1] /= factor
    found = find_grey_scales(source, HALVES, part)
    assert float(found.scale[1] / found.scale[0]) == pytest.approx(factor, rel=0.05)
    assert 1.0 in found.scale.tolist() and not bool(found.is_weak.any()) and not bool(found.is_dark.any())


@pytest.mark.parametrize("unit", [1.0, 1000.0, 0.001])
def test_a_part_without_signal_beside_its_noise_is_weak_in_any_unit(unit: float) -> None:
    part = parts(250, 150)
    source = images_of(torch.tensor([1.0, 0.0])[part])
    source.ctf[250:] /= unit
    found = find_grey_scales(source, HALVES, part)
    assert found.is_weak.tolist() == [False, True]
    assert found.scale.tolist() == pytest.approx([1.0, 0.05 * unit], rel=0.1)


def test_images_of_one_scale_in_many_small_parts_stay_as_they_are() -> None:
    part = torch.arange(IMAGES) // 3
    contrast = 1 + 0.15 * torch.randn(IMAGES, generator=torch.Generator().manual_seed(3))
    found = find_grey_scales(images_of(contrast), HALVES, part)
    assert bool((found.scale == 1).all()) and not bool(found.is_dark.any())


def test_dark_images_among_bright_ones_are_found_one_by_one() -> None:
    """In a part of another scale, too; some images tell neither sign."""
    part, scale = parts(240, 160), torch.ones(IMAGES)
    scale[240:] = 2.0
    dark = torch.rand(IMAGES, generator=torch.Generator().manual_seed(4)) < 0.3
    found = find_grey_scales(images_of(torch.where(dark, -scale, scale)), HALVES, part)
    assert not bool((found.is_dark & ~dark).any())
    assert int(found.is_dark.sum()) > 0.97 * int(dark.sum())
    assert float(found.scale[1]) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("dark", [[0, 1, 2, 3, 4], [7, 19, 39]])
@pytest.mark.parametrize("factor", [-1.0, -2.0])
def test_small_parts_of_the_other_sign_are_turned(dark: list[int], factor: float) -> None:
    """All parts have ten images; the first one, of those with most, may be among the dark ones."""
    part, true = parts(*[10] * 40), torch.ones(40)
    true[dark] = factor
    found = find_grey_scales(images_of(true[part]), HALVES, part)
    assert found.scale[dark].tolist() == pytest.approx([factor] * len(dark), rel=0.1)
    assert int((found.scale == 1).sum()) == 40 - len(dark) and not bool(found.is_dark.any())


@pytest.mark.parametrize("more", [0, -2, 2])
def test_dark_images_of_a_part_of_either_sign_are_those_unlike_the_whole(more: int) -> None:
    part, scale = parts(300, 100), torch.ones(IMAGES)
    scale[300 : 350 + more] = -1.0
    found = find_grey_scales(images_of(scale), HALVES, part)
    assert found.scale.tolist() == [1.0, 1.0]
    assert not bool((found.is_dark & (scale > 0)).any()) and int(found.is_dark.sum()) > 0.95 * (50 + more)


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_images_of_either_sign_in_nearly_equal_numbers_are_told_apart(share: float) -> None:
    """Their mean vanishes; which ones count as dark, of two halves, is left to chance."""
    dark = torch.zeros(IMAGES, dtype=torch.bool)
    dark[torch.randperm(IMAGES, generator=torch.Generator().manual_seed(6))[: round(share * IMAGES)]] = True
    found = find_grey_scales(images_of(torch.where(dark, -1.0, 1.0)), HALVES, torch.zeros(IMAGES, dtype=torch.int64))
    agreement = float((found.is_dark == dark).double().mean())
    assert agreement > 0.97 or (share == 0.5 and agreement < 0.03)
    assert found.scale.tolist() == [1.0] and found.is_known and abs(found.one_sidedness) > 0.8


def test_the_opposite_states_of_a_subtracted_mean_are_of_no_sign() -> None:
    """Density comes and goes: what images share has as much of either sign."""
    z = torch.where(torch.rand(IMAGES, 1, generator=torch.Generator().manual_seed(7)) < 0.5, -1.0, 1.0)
    mass = torch.tensor([5.0, -5.0]).repeat(len(PHANTOM.atoms) // 2)
    source = images_of(z[:, 0], replace(PHANTOM, mean_mass=mass, factor_mass=0 * PHANTOM.factor_mass))
    found = find_grey_scales(source, HALVES, torch.zeros(IMAGES, dtype=torch.int64))
    assert 0.3 < float(found.is_dark.double().mean()) < 0.7 and abs(found.one_sidedness) < 0.3


def test_a_cut_is_found_where_signs_are_mixed() -> None:
    """The signal is weaker from a row on; signs change in no order and cut nothing."""
    scale = torch.where(torch.arange(IMAGES) < 240, 1.0, 0.4)
    sign = torch.where(torch.rand(IMAGES, generator=torch.Generator().manual_seed(8)) < 0.45, -1.0, 1.0)
    found = find_grey_scales(images_of(scale * sign), HALVES, torch.zeros(IMAGES, dtype=torch.int64))
    assert torch.equal(found.part, (torch.arange(IMAGES) >= 240).long())
    assert found.scale.tolist() == pytest.approx([1.0, 0.4], rel=0.05)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_small_parts_of_noise_have_no_scale_and_no_sign(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    cross = 20 * torch.randn(IMAGES, generator=generator, dtype=torch.float64)
    evidence = torch.stack((torch.full_like(cross, 400.0), cross), dim=1)
    found = scales_of_parts(evidence, torch.arange(IMAGES) // size, torch.arange(IMAGES), -(-IMAGES // size))
    assert bool((found.scale == 1).all()) and not bool(found.is_dark.any())


def test_images_without_particle_have_no_scale_and_no_sign() -> None:
    found = find_grey_scales(images_of(torch.zeros(IMAGES)), HALVES, parts(200, 200))
    assert not found.is_known
    assert found.scale.tolist() == [1.0, 1.0] and not bool(found.is_dark.any())


def test_a_part_of_one_half_set_only_is_compared_with_the_other() -> None:
    part = torch.arange(IMAGES) % 4 // 3  # in the second half-set, of which it is a half
    found = find_grey_scales(images_of(torch.tensor([1.0, 3.0])[part]), HALVES, part)
    assert found.scale.tolist() == pytest.approx([1.0, 3.0], rel=0.05)


def test_a_part_is_cut_where_its_signal_changes() -> None:
    """The first 240 rows of one part; the others, in between, are whole; images that are not used belong to a piece."""
    part = (torch.arange(IMAGES) % 4 == 3).long()
    is_weak = (torch.arange(IMAGES) < 240) & (part == 0)
    halves = HALVES[0][:-1], HALVES[1]
    found = find_grey_scales(images_of(torch.where(is_weak, 0.4, 1.0)), halves, part)
    assert torch.equal(found.part, torch.where(is_weak, 0, 1 + part))
    assert found.scale.tolist() == pytest.approx([1.0, 1 / 0.4, 1 / 0.4], rel=0.05)


@pytest.mark.parametrize(
    ("scale", "pieces"),
    [
        (lambda row: torch.where((row > 299) & (row < 600), 0.4, 1.0), [300, 300, 400]),
        (lambda row: torch.where(row < 200, 3.0, torch.where(row < 500, 1.0, 0.0)), [200, 300, 500]),
        (lambda row: torch.where(row < 300, 3.0, torch.where(row < 650, 1.0, 0.8)), [300, 700]),
        (lambda row: torch.where(row < 500, -2.0, -1.0), [500, 500]),
        (lambda row: torch.where(row < 30, 0.4, 1.0), [1000]),  # too few
        (lambda row: torch.where(row < 500, 0.7, 1.0), [1000]),  # too little
        (lambda row: torch.linspace(0.8, 1.2, 1000), [1000]),
        (lambda row: torch.where(row % 2 < 1, 0.4, 1.0), [1000]),
        (lambda row: torch.where(row < 500, -1.0, 2.0), [1000]),  # two states, perhaps, whose mean was subtracted
        (lambda row: torch.zeros(1000), [1000]),
    ],
)
def test_pieces_are_long_and_differ_clearly(scale, pieces: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    true = scale(torch.arange(1000)) * (1 + 0.2 * torch.randn(1000, generator=generator))
    power = torch.full((1000,), 100.0, dtype=torch.float64)
    cross = power * true + 10 * torch.randn(1000, generator=generator)
    cut = cut_at_steps(torch.stack((power, cross), dim=1), torch.zeros(1000, dtype=torch.int64), torch.arange(1000))
    assert bool((cut.diff() >= 0).all())
    assert torch.bincount(cut).tolist() == pytest.approx(pieces, abs=3)


def test_evidence_is_that_of_the_dense_slices() -> None:
    simulation = simulate(PHANTOM, 20, BOX)
    source, mean = simulation.source, simulation.phantom.mean(BOX)
    model = DenseModel.of(source.double(), in_double(full_band(simulation)), mean[None].double())
    evidence = scale_evidence(source, source.everyone, source.disk, mean)
    expected = torch.stack(((model.mean**2).sum(dim=1), (model.mean * model.images).sum(dim=1)), dim=1)
    # the origin, a real number, counts as half of a complex one there
    torch.testing.assert_close(evidence, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("power", [5.0, 100.0])
@pytest.mark.parametrize(("junk", "weak"), [(0.5, False), (0.8, False), (0.5, True)])
@pytest.mark.parametrize("size", [300, 700])
def test_a_part_with_junk_keeps_the_scale_of_its_good_images(power: float, junk: float, weak: bool, size: int) -> None:
    """It may be the largest one, which others are compared with; one whose images are all weaker is scaled."""
    generator = torch.Generator().manual_seed(0)
    part = parts(1000 - size, size)
    contrast = 1 + 0.2 * torch.randn(1000, generator=generator, dtype=torch.float64)
    is_junk = (part == 1) & (torch.rand(1000, generator=generator) < junk)
    contrast[part == 1 if weak else is_junk] *= 1 - junk if weak else 0
    cross = power * contrast + power**0.5 * torch.randn(1000, generator=generator, dtype=torch.float64)
    evidence = torch.stack((torch.full_like(cross, power), cross), dim=1)
    scale = scales_of_parts(evidence, part, torch.arange(1000), 2).scale
    assert float(scale[1] / scale[0]) == pytest.approx(1 - junk if weak else 1.0, rel=0.1 if weak else 1e-9)


def test_images_at_foreign_poses_have_no_scale() -> None:
    """They show some of the mean on average, and more or less of it each."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.where(torch.arange(600) < 300, 1.0, 0.2) + 0.2 * torch.randn(600, generator=generator)
    evidence = torch.stack((torch.full_like(contrast, 200.0), 200.0 * contrast), dim=1).double()
    assert scales_of_parts(evidence, parts(300, 300), torch.arange(600), 2).scale.tolist() == [1.0, 1.0]


def test_difference_counts_against_the_spread_of_single_images() -> None:
    """Two images of a contrast of 1.6 are nothing beside a spread of 0.3; forty are."""
    generator = torch.Generator().manual_seed(0)
    for count, differs in ((2, False), (40, True)):
        part = parts(200, count)
        contrast = 1 + 0.3 * torch.randn(200 + count, generator=generator, dtype=torch.float64)
        contrast[200:] = 1.6
        evidence = torch.stack((torch.full_like(contrast, 400.0), 400.0 * contrast), dim=1)
        scale = scales_of_parts(evidence, part, torch.arange(200 + count), 2).scale
        assert (float(scale[1]) != 1) == differs
