"""The slow background of images against polynomials in real space and dense projections."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.imaging.background import Background, background_columns, phases_of_centring, polynomials, support
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, images_to_scaled_disk, shift_phases

BOX = 32
DISK = HalfDisk.create(BOX)
WHITENING = 1.0 / (1.0 + 0.2 * DISK.shell.float())


def columns_of(ratio: float = 1.0) -> torch.Tensor:
    return background_columns(DISK, BOX, ratio, WHITENING)


def polynomial_images(count: int, seed: int = 0) -> torch.Tensor:
    weights = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("nk,kyx->nyx", weights, polynomials(BOX))


@pytest.mark.parametrize("ratio", [1.0, 1.25, 0.8])
def test_columns_are_orthonormal_and_hold_all_slow_backgrounds(ratio: float) -> None:
    columns, weight = columns_of(ratio).to(torch.complex128), support(DISK).weight.double()
    gram = ((columns.conj() * weight[:, None]).mT @ columns).real
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-5)
    images = images_to_scaled_disk(polynomial_images(7), DISK, ratio) * WHITENING.double()
    first = len(support(DISK))
    before = (images[:, :first].abs() ** 2 @ weight).sqrt()
    taken = images.clone()
    Background(columns[None].expand(7, -1, -1), torch.zeros(7, 6)).take_from(taken[..., None], DISK.weight.double())
    assert bool(((taken[:, :first].abs() ** 2 @ weight).sqrt() < 1e-4 * before).all())
    assert torch.equal(taken[:, first:], images[:, first:])


def test_what_is_removed_from_centred_images_moves_with_them() -> None:
    shift = torch.tensor([[2.5, -1.0], [0.0, 3.0]])
    centred = images_to_disk(polynomial_images(2).float(), DISK) * WHITENING * shift_phases(DISK, shift, BOX)
    columns = columns_of()[None] * phases_of_centring(DISK, shift)[:, :, None]
    weight, first = DISK.weight, len(support(DISK))
    left = centred.clone()
    background = Background.removed_from(left, columns, weight)
    assert float(left[:, :first].abs().max()) < 1e-4 * float(centred.abs().max())
    torch.testing.assert_close(background.images_of(background.coordinates) + left[:, :first], centred[:, :first])
    still = centred.clone()
    Background.removed_from(still, columns_of()[None].expand(2, -1, -1), weight)
    assert float(still[:, :first].abs().max()) > 0.02 * float(centred.abs().max())


def test_variance_is_that_of_the_noise_that_is_lost() -> None:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(20_000, len(DISK), dtype=torch.complex64, generator=generator)
    noise[:, DISK.weight == 1] = noise[:, DISK.weight == 1].real * 2**0.5 + 0j  # the origin is real
    background = Background.removed_from(noise.clone(), columns_of()[None].expand(len(noise), -1, -1), DISK.weight)
    lost = background.images_of(background.coordinates).abs().square().mean(dim=0)
    torch.testing.assert_close(lost, background.variance()[0], rtol=0.1, atol=2e-3)


def test_a_small_disk_has_fewer_columns() -> None:
    disk = HalfDisk.create(BOX, 1)
    columns = background_columns(disk, BOX, 1.0, torch.ones(len(disk)))
    assert columns.shape[0] == len(disk) and 2 <= columns.shape[1] <= 6
