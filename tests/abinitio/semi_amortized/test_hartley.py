from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.abinitio.semi_amortized.hartley import HartleyVolume, read_slices
from solvar_engine.imaging.fourier import HalfDisk, low_pass, volume_to_ft
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.projectors.grid import GridGeometry
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.abinitio.sgd.tiny import BOX, blobs

SHELL = 5
DISK = HalfDisk.create(BOX, SHELL)
GEOMETRY = GridGeometry(BOX, SHELL, 2, "trilinear")


def rotations(count: int) -> Tensor:
    return random_rotations(count, torch.Generator().manual_seed(0))


def projector() -> TorchProjector:
    return TorchProjector(BOX, DISK, interpolation="trilinear", oversampling=2, dtype=torch.float64)


def test_slices_are_those_of_the_projector() -> None:
    volume, other = blobs(BOX), projector()
    model = HartleyVolume.of(volume, GEOMETRY)
    expected = other.project(other.to_grid(volume[None]), rotations(6))[:, :, 0]
    torch.testing.assert_close(read_slices(model.grid(), GEOMETRY, DISK, rotations(6).double()), expected)
    torch.testing.assert_close(other.project(model.grid().detach(), rotations(6))[:, :, 0], expected)


def test_numbers_are_the_real_less_the_imaginary_part() -> None:
    volume = blobs(BOX)
    model = HartleyVolume.of(volume, GridGeometry(BOX, SHELL, 1, "nearest"))
    numbers, centre = model.mantissa * model.exponent.exp(), SHELL + 1
    correction = GridGeometry(BOX, SHELL, 1, "nearest").gridding_correction(volume.dtype, "cpu")
    spectrum = volume_to_ft(volume / correction)
    for z, y, x in ((0, 0, 0), (1, -2, 3), (-2, 1, 0), (0, 4, 1)):
        coefficient = spectrum[BOX // 2 + z, BOX // 2 + y, x]
        for sign in (1, -1):  # at the opposite frequency the imaginary part changes its sign
            at = numbers[centre + sign * z, centre + sign * y, centre + sign * x]
            torch.testing.assert_close(at, coefficient.real - sign * coefficient.imag)


def test_the_map_comes_back() -> None:
    volume = low_pass(blobs(BOX), 3)
    back = HartleyVolume.of(volume, GEOMETRY).volume().detach()
    assert float((back - volume).norm() / volume.norm()) < 0.05  # what lies beyond the band is lost
    assert abs(float((back * volume).sum() / volume.square().sum()) - 1) < 0.005


def test_mantissas_are_of_order_one_at_all_frequencies() -> None:
    model = HartleyVolume.of(1e4 * blobs(BOX), GEOMETRY)
    inside = model.mantissa.detach()[2:-2, 2:-2, 2:-2]
    assert 0.2 < float(inside.abs().median()) < 2 and float(inside.abs().max()) < 30


def test_gradients_by_numbers_and_rotation_are_those_of_differences() -> None:
    model = HartleyVolume.of(blobs(8), GridGeometry(8, 2, 2, "trilinear"))
    disk, rotation = HalfDisk.create(8, 2), rotations(2).double().requires_grad_()

    def slices(mantissa: Tensor, exponent: Tensor, turned: Tensor) -> Tensor:
        values = {"mantissa": mantissa, "exponent": exponent}
        grid = torch.func.functional_call(_Grid(model), {f"model.{name}": value for name, value in values.items()}, ())
        return torch.view_as_real(read_slices(grid, model.geometry, disk, turned))

    inputs = model.mantissa.detach().requires_grad_(), model.exponent.detach().requires_grad_(), rotation
    assert torch.autograd.gradcheck(slices, inputs, fast_mode=True)


class _Grid(torch.nn.Module):
    def __init__(self, model: HartleyVolume) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Tensor:
        return self.model.grid()
