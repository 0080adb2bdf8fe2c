"""Networks from the moments of images to map, views and shifts: chapters 2 and 3 of the thesis (MoM-net).

An encoder names coefficients of a map in a basis, the probabilities of views, and the spread of the shifts; a second
network adds a refinement of the map, in Fourier space. In-plane angles are uniform, as in the thesis, but in closed
form and not over 12 steps: moments enter, and are compared, on rings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair, angles_of
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.encoder import Encoder
from solvar_engine.imaging.harmonics import rotations_to, sphere_quadrature

RADIUS = 0.4  # of the ball around a molecule, boxes
ANGLES = 20  # round the circle: the second moment has angular frequencies up to 9
_VIEWS_DEGREE = 13  # of the quadrature of the sphere, 98 views
_CHANNELS, _LEAVING, _HIDDEN = 32, 12, 256
_LEAKY = 0.02
_FOURIER_HIDDEN, _FOURIER_STEP = 32, 10.0  # phases of a map in its ball are up to 2 pi 7 RADIUS at shell 7


def rings_of(box_size: int) -> Tensor:
    """Rings 1, 2, ... within the border of images of a box, Fourier pixels, float64."""
    return torch.arange(1, (box_size + 1) // 2, dtype=torch.float64)


@dataclass(frozen=True)
class Estimate:
    """What an encoder makes of moments.

    Attributes
    ----------
    coefficients : Tensor, shape (count, n), float64
        Of the map.
    probability : Tensor, shape (count, views), float64
    shift_std : Tensor, shape (count,), float64
        As a share of the box.
    """

    coefficients: Tensor
    probability: Tensor
    shift_std: Tensor


class MapEncoder(Encoder):
    """Moments to coefficients, density of views, and spread of shifts (equation 3.8).

    As appendix A: convolutions along the circle, with a channel for each pair of rings, then fully connected layers.
    The map is as strong as the moments are: of those of a map times c, coefficients are c times as large.

    Parameters
    ----------
    box_size : int
        Of images, px.
    last_degree : int
        Of the basis of maps; None leaves the map to the refinement (chapter 2).
    largest_shift_std : float
        As a share of the box; 0 takes images for centred.
    """

    def __init__(self, box_size: int = 15, last_degree: int | None = 3, largest_shift_std: float = 2 / 15) -> None:
        super().__init__()
        self.settings = {
            "box_size": box_size, "last_degree": last_degree, "largest_shift_std": largest_shift_std,
        }  # fmt: skip
        self.box_size, self.largest_shift_std = box_size, largest_shift_std
        ring = rings_of(box_size)
        self.direction, self.view_weight = sphere_quadrature(_VIEWS_DEGREE)
        basis = BallBasis.create(box_size, RADIUS * box_size, float(ring[-1]), last_degree or 0)
        self.model = MapMoments(basis, ring, ANGLES, self.direction)
        self.sizes = (0 if last_degree is None else len(basis), len(self.direction), 1)
        pairs = len(ring) ** 2
        self.along_circle = nn.Sequential(
            self._convolution(pairs, _CHANNELS), nn.LeakyReLU(_LEAKY),
            self._convolution(_CHANNELS, _CHANNELS), nn.LeakyReLU(_LEAKY),
            self._convolution(_CHANNELS, _LEAVING), nn.Tanh(), nn.Flatten(),
        )  # fmt: skip
        self.together = nn.Sequential(
            nn.Linear(len(ring) + pairs + _LEAVING * ANGLES, _HIDDEN), nn.LeakyReLU(_LEAKY),
            nn.Linear(_HIDDEN, _HIDDEN), nn.LeakyReLU(_LEAKY),
            nn.Linear(_HIDDEN, _HIDDEN), nn.LeakyReLU(_LEAKY), nn.Linear(_HIDDEN, sum(self.sizes)),
        )  # fmt: skip

    def strength(self, second: Tensor) -> Tensor:
        """Root of the norm, over the plane of frequencies, of second moments (..., rings, rings, angles)."""
        area = (self.model.ring[:, None] * self.model.ring)[:, :, None]
        return (area * second.square()).sum(dim=(-3, -2)).mean(dim=-1).pow(0.25)

    def forward(self, first: Tensor, second: Tensor) -> Estimate:
        """Of moments (count, rings) and (count, rings, rings, angles)."""
        area = self.model.ring.sqrt()
        scale = self.strength(second)
        weighted_first = first * area / scale[:, None]
        weighted = (second * (area[:, None] * area)[:, :, None]).flatten(1, 2) / scale[:, None, None].square()
        dtype = next(self.parameters()).dtype
        around = self.along_circle(weighted.to(dtype))
        entering = torch.cat((weighted_first.to(dtype), weighted.mean(dim=2).to(dtype), around), dim=1)
        coefficients, views, shift = self.together(entering).double().split(self.sizes, dim=1)
        probability = torch.softmax(views + self.view_weight.log(), dim=1)
        return Estimate(coefficients * scale[:, None], probability, self.largest_shift_std * shift[:, 0].sigmoid())


class _Sine(nn.Module):
    """sin(step x), as in SIREN (Sitzmann et al., NeurIPS 2020)."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def forward(self, values: Tensor) -> Tensor:
        return torch.sin(self.step * values)


class FourierNet(nn.Module):
    """Transform of a real map, exp(a(k)) (b(k) + i c(k)) symmetrised, a, b and c being two SIRENs.

    As in cryoAI (Levy et al., ECCV 2022), from where the thesis has it (equation A.1), for values that span many orders
    of magnitude.

    Parameters
    ----------
    is_zero : bool
        Whether the map is 0 at the start, as a refinement is.
    """

    def __init__(self, is_zero: bool) -> None:
        super().__init__()
        self.amplitude, self.parts = self._siren(1, False), self._siren(2, is_zero)

    @staticmethod
    def _siren(leaving: int, is_zero: bool) -> nn.Sequential:
        layers = nn.Linear(3, _FOURIER_HIDDEN), nn.Linear(_FOURIER_HIDDEN, _FOURIER_HIDDEN)
        last = nn.Linear(_FOURIER_HIDDEN, leaving)
        bound = math.sqrt(6 / _FOURIER_HIDDEN)
        nn.init.uniform_(layers[0].weight, -1 / 3, 1 / 3)
        nn.init.uniform_(layers[1].weight, -bound, bound)
        if is_zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return nn.Sequential(layers[0], _Sine(_FOURIER_STEP), layers[1], _Sine(1.0), last)

    def forward(self, frequency: Tensor) -> Tensor:
        """Values (...) at frequencies (..., 3), in units of the largest one; those at k and -k are conjugates."""
        pair = torch.stack((frequency, -frequency))
        there, opposite = self.amplitude(pair).exp() * self.parts(pair)
        mean = (there + opposite * torch.tensor([1.0, -1.0], dtype=frequency.dtype)) / 2
        return torch.view_as_complex(mean)


class MomentNetwork(nn.Module):
    """Encoder and refinement: MoM-net, or the framework of chapter 2 if the encoder has neither basis nor shifts.

    Parameters
    ----------
    encoder : MapEncoder
        Its weights may be trained ones.
    """

    def __init__(self, encoder: MapEncoder) -> None:
        super().__init__()
        self.encoder, self.refinement = encoder, FourierNet(is_zero=encoder.sizes[0] > 0)
        ring, phi = encoder.model.ring, angles_of(ANGLES)
        circle = torch.stack((phi.cos(), phi.sin(), torch.zeros_like(phi)))[:, : ANGLES // 2]
        around = (rotations_to(encoder.direction) @ circle).mT[:, None]
        self._frequency = around * (ring / ring[-1])[:, None, None]  # (views, rings, half of the angles, 3)
        phase = -torch.arange(ANGLES // 2)[:, None] * phi
        self._fourier = torch.polar(torch.full_like(phase, 1 / ANGLES), phase)

    def forward(self, first: Tensor, second: Tensor) -> tuple[MomentPair, Estimate]:
        """Moments (rings,), (rings, rings, angles) of the map and views that are found from such ones, and these."""
        estimate = self.encoder(first[None], second[None])
        dtype = next(self.parameters()).dtype
        half = self.refinement(self._frequency.to(dtype)).to(torch.complex128)
        around = torch.cat((half, half.conj()), dim=2)  # of a real image, the opposite is the conjugate
        slices = torch.einsum("qa,vra->qvr", self._fourier, around) * self.encoder.strength(second)
        if estimate.coefficients.shape[1]:
            of_basis = self.encoder.model.slices(estimate.coefficients[0])
            slices = torch.cat((of_basis + slices[: len(of_basis)], slices[len(of_basis) :]))
        moments = self.encoder.model.of_slices(slices, estimate.probability[0], estimate.shift_std[0])
        return moments, estimate
