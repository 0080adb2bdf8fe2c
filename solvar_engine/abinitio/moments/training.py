"""Training of encoders on generated structures, and fits of networks to the moments of one structure."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.networks import ANGLES, RADIUS, MapEncoder, MomentNetwork, rings_of
from solvar_engine.abinitio.moments.recovery import kam_loss, relative_errors

_DEGREE = 6  # of the basis of structures: more than encoders name, so that these are not exact
_ATOMS, _ATOM_WIDTH, _EXTENT = 20, 1 / 15, 0.28  # widths and distances from the centre in boxes


class Structures:
    """Random structures, chains of 20 atoms that are normal densities, and moments of their images.

    Parameters
    ----------
    box_size : int
    direction, weight : Tensor, shape (views, 3) and (views,)
        Quadrature of the views.
    """

    def __init__(self, box_size: int, direction: Tensor, weight: Tensor) -> None:
        self.direction, self.weight = direction, weight
        ring = rings_of(box_size)
        self.basis = BallBasis.create(box_size, RADIUS * box_size, float(ring[-1]), _DEGREE)
        self.model = MapMoments(self.basis, ring, ANGLES, direction)
        self._values, self._inside = self.basis.on_grid()
        self._axis = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) / box_size

    def maps(self, count: int, generator: torch.Generator) -> Tensor:
        """Coefficients (count, n) of random walks of atoms, of unit norm."""
        walk = torch.randn(count, _ATOMS, 3, generator=generator, dtype=torch.float64).cumsum(dim=1)
        walk = walk - walk.mean(dim=1, keepdim=True)
        atom = walk * (_EXTENT / walk.norm(dim=2).max(dim=1).values)[:, None, None]
        x, y, z = torch.exp(-(self._axis[:, None, None] - atom[:, None]).square() / (2 * _ATOM_WIDTH**2)).unbind(-1)
        density = torch.einsum("cza,cyxa->czyx", z, y[:, :, None] * x[:, None])
        coefficients = density[:, self._inside] @ self._values
        return coefficients / coefficients.norm(dim=1, keepdim=True)

    def views(self, centre: Tensor, concentration: Tensor, share: Tensor) -> Tensor:
        """Probabilities (count, views) of mixtures of densities of von Mises and Fisher.

        Parameters
        ----------
        centre : Tensor, shape (m, 3)
        concentration : Tensor, shape (m,)
        share : Tensor, shape (count, m)
        """
        scale = concentration / (4 * math.pi * concentration.sinh())
        density = share @ (scale[:, None] * torch.exp(concentration[:, None] * (centre @ self.direction.T)))
        weighted = self.weight * density
        return weighted / weighted.sum(dim=1, keepdim=True)

    def moments(self, coefficients: Tensor, probability: Tensor, shift_std: Tensor) -> MomentPair:
        """Of maps (count, n), views (count, views) and shifts (count,), each with the leading axis (count,)."""
        return batched_moments(self.model, coefficients, probability, shift_std)


def batched_moments(model: MapMoments, coefficients: Tensor, probability: Tensor, shift_std: Tensor) -> MomentPair:
    """`MapMoments.of_views` of each of several maps, views and shifts."""

    def of_one(one: Tensor, views: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        pair = model.of_views(one, views, shift)
        return pair.first, pair.second

    return MomentPair(*torch.vmap(of_one)(coefficients, probability, shift_std))


def batched_loss(model: MomentPair, data: MomentPair, ring: Tensor) -> Tensor:
    """`kam_loss` of each of several pairs, (count,)."""
    weight = torch.ones(len(ring), len(ring), dtype=torch.float64)

    def of_one(first: Tensor, second: Tensor, true_first: Tensor, true_second: Tensor) -> Tensor:
        return kam_loss(MomentPair(first, second), MomentPair(true_first, true_second), ring, weight)

    return torch.vmap(of_one)(model.first, model.second, data.first, data.second)


# preferred views of the structures for training, fixed as in section 3.4.1
_CENTRES = torch.tensor(
    [[0.0, 0.0, 1.0], [0.8, 0.0, 0.6], [0.0, -0.96, -0.28], [-0.6, 0.64, 0.48], [-0.48, -0.36, 0.8]],
    dtype=torch.float64,
)
_CONCENTRATION = torch.tensor([2.0, 4.0, 6.0, 4.0, 8.0], dtype=torch.float64)


def training_moments(
    structures: Structures, count: int, largest_shift_std: float, generator: torch.Generator
) -> MomentPair:
    """Moments of random maps, mixtures of the same five preferred views, and shifts of any spread up to one."""
    shares = torch.rand(count, len(_CENTRES), generator=generator, dtype=torch.float64)
    shift_std = largest_shift_std * torch.rand(count, generator=generator, dtype=torch.float64)
    views = structures.views(_CENTRES, _CONCENTRATION, shares)
    return structures.moments(structures.maps(count, generator), views, shift_std)


def train_encoder(
    encoder: MapEncoder, largest_shift_std: float, generator: torch.Generator, batches: int, batch_size: int,
    rate: float,
) -> Iterator[float]:  # fmt: skip
    """Train on moments that are made on the fly, each seen once, and yield the mean Kam loss of each batch.

    Parameters
    ----------
    encoder : MapEncoder
        Changed in place.
    largest_shift_std : float
        Of structures, as a share of the box.
    generator : torch.Generator
    batches, batch_size : int
    rate : float
        Of Adam; it falls to nought along a cosine.
    """
    structures = Structures(encoder.box_size, encoder.direction, encoder.view_weight)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches)
    for _ in range(batches):
        data = training_moments(structures, batch_size, largest_shift_std, generator)
        loss = encoder_loss(encoder, data).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def encoder_loss(encoder: MapEncoder, data: MomentPair) -> Tensor:
    """Kam loss of what an encoder names, (count,)."""
    found = encoder(data.first, data.second)
    model = batched_moments(encoder.model, found.coefficients, found.probability, found.shift_std)
    return batched_loss(model, data, encoder.model.ring)


def fit_network(
    network: MomentNetwork, data: MomentPair, iterations: int, rate: float
) -> Iterator[tuple[float, float, float]]:
    """Fit the weights to the moments of one structure by the Kam loss.

    Yields
    ------
    first_error, second_error : float
        Relative errors of both moments, before each step.
    shift_std : float
        As a share of the box.
    """
    ring = network.encoder.model.ring
    weight = torch.ones(len(ring), len(ring), dtype=torch.float64)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        moments, estimate = network(data.first, data.second)
        first, second = relative_errors(moments, data, ring, weight)
        optimizer.zero_grad()
        (first + second).backward()
        optimizer.step()
        schedule.step()
        yield float(first.detach()), float(second.detach()), float(estimate.shift_std[0].detach())
