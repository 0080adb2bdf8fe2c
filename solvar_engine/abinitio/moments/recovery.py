"""Maps of given moments, without a network: least squares by L-BFGS from several starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.steerable import EmpiricalMoments
from solvar_engine.imaging.harmonics import real_harmonics, sphere_quadrature
from solvar_engine.imaging.rotation import random_rotations

_BLOBS, _BLOB_WIDTH, _BLOBS_WITHIN = 12, 0.3, 0.6  # of a random start; shares of the radius of the ball
_UNEVEN = 0.1  # logarithm of the density of views at the start


def relative_errors(model: MomentPair, data: MomentPair, ring: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Relative errors of both moments: norms over the plane of frequencies, or pairs of these.

    Parameters
    ----------
    model, data : MomentPair
    ring : Tensor, shape (rings,)
        A ring stands for an area that grows with it.
    weight : Tensor, shape (rings, rings)
        Of each pair of rings besides.
    """
    of_first = ring * weight.diagonal().sqrt()
    of_second = (weight * ring[:, None] * ring)[:, :, None]
    errors = []
    for found, wanted, area in ((model.first, data.first, of_first), (model.second, data.second, of_second)):
        errors.append((area * (found - wanted).square()).sum().sqrt() / (area * wanted.square()).sum().sqrt())
    return errors[0], errors[1]


def sampling_error(data: EmpiricalMoments) -> float:
    """Relative error that the number of the images and their noise make in their second moment.

    Raises
    ------
    ValueError
        If the moments are not those of images.
    """
    if data.half_difference is None:
        raise ValueError("there are no halves of the images")
    moved = MomentPair(data.moments.first, data.moments.second + data.half_difference)
    return float(relative_errors(moved, data.moments, data.ring, data.weight)[1])


def kam_loss(model: MomentPair, data: MomentPair, ring: Tensor, weight: Tensor) -> Tensor:
    """Sum of the relative errors of both moments (Paul 2024, eq. 3.13)."""
    first, second = relative_errors(model, data, ring, weight)
    return first + second


@dataclass(frozen=True)
class RecoveryOptions:
    """How maps are sought.

    Attributes
    ----------
    starts : int
        Random ones.
    iterations : int
        Of L-BFGS, of each start.
    views_degree : int
        Of the spherical harmonics whose sum is the logarithm of the density of views; 0 takes views for uniform.
    fits_shifts : bool
        Whether the spread of the shifts is open.
    positivity : float
        Weight of the negative density, whose share of the squared density is added to the squared errors. A map that
        is cut to few shells has some itself.
    """

    starts: int = 4
    iterations: int = 300
    views_degree: int = 0
    fits_shifts: bool = False
    positivity: float = 10.0


@dataclass(frozen=True)
class Recovered:
    """A map of given moments.

    Attributes
    ----------
    coefficients : Tensor, shape (n,), float64
    log_density : Tensor, shape (harmonics - 1,), float64
        Coefficients of the logarithm of the density of views, from degree 1 on.
    shift_std : float
        As a share of the box.
    first_error, second_error : float
        Relative errors of the moments.
    objective : float
    """

    coefficients: Tensor
    log_density: Tensor
    shift_std: float
    first_error: float
    second_error: float
    objective: float


class MomentObjective:
    """Squared relative errors of the moments, and the squared share of negative density.

    Density is positive: of uniform views, the moments leave an orthogonal matrix of each degree open, of which few make
    a positive map.

    Parameters
    ----------
    data : EmpiricalMoments
    basis : BallBasis
    views_degree : int
    fits_shifts : bool
    shift_std : float
        As a share of the box; where the search starts if it is fitted.
    operators : Tensor, shape (g, 3, 3), optional
        Of the point group of the map.
    positivity : float
        Weight of the negative density.
    """

    def __init__(
        self, data: EmpiricalMoments, basis: BallBasis, views_degree: int = 0, fits_shifts: bool = False,
        shift_std: float = 0.0, operators: Tensor | None = None, positivity: float = RecoveryOptions.positivity,
    ) -> None:  # fmt: skip
        self.data, self.basis, self.shift_std, self._positivity = data, basis, shift_std, positivity
        everything = torch.eye(len(basis), dtype=torch.float64)
        self._invariants = everything if operators is None else basis.invariants(operators)
        direction, self._views_weight = sphere_quadrature(2 * basis.last_degree + views_degree)
        self._views = real_harmonics(views_degree, direction)[:, 1:]
        angles = data.moments.second.shape[-1]
        self._model = MapMoments(basis, data.ring, angles, direction if views_degree else None)
        self._grid = basis.on_grid()[0] @ self._invariants
        self.sizes = (self._invariants.shape[1], self._views.shape[1], int(fits_shifts))

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Coefficients of the map, of the logarithm of the density of views, and the deviation of the shifts."""
        invariants, log_density, log_shift = parameters.split(self.sizes)
        shift_std = self.shift_std * log_shift[0].exp() if len(log_shift) else self.shift_std
        return self._invariants @ invariants, log_density, shift_std

    def moments(self, parameters: Tensor) -> MomentPair:
        """Those of the model."""
        coefficients, log_density, shift_std = self.split(parameters)
        if not len(log_density):
            return self._model.uniform(coefficients, shift_std)
        probability = torch.softmax(self._views @ log_density + self._views_weight.log(), dim=0)
        return self._model.of_views(coefficients, probability, shift_std)

    def value(self, parameters: Tensor) -> Tensor:
        """What is to be small."""
        data = self.data
        first, second = relative_errors(self.moments(parameters), data.moments, data.ring, data.weight)
        density = self._grid @ parameters[: self.sizes[0]]
        negative = density.clamp_max(0).square().sum() / density.square().sum()
        return first.square() + second.square() + self._positivity * negative

    def value_and_gradient(self, parameters: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """For SciPy."""
        open_parameters = torch.from_numpy(parameters.copy()).requires_grad_()
        value = self.value(open_parameters)
        (gradient,) = torch.autograd.grad(value, open_parameters)
        return float(value.detach()), gradient.numpy()

    def random_start(self, generator: torch.Generator) -> Tensor:
        """Parameters of blobs at random places, as strong as the second moment asks for, and of nearly even views."""
        basis = self.basis
        places, _ = basis.places()
        direction = random_rotations(_BLOBS, generator)[:, :, 2].double()
        distance = _BLOBS_WITHIN * torch.rand(_BLOBS, dtype=torch.float64, generator=generator).pow(1 / 3)
        centre = basis.radius * distance[:, None] * direction
        width = _BLOB_WIDTH * basis.radius
        density = torch.exp(-(places[:, None] - centre).square().sum(dim=2) / (2 * width**2)).sum(dim=1)
        parameters = torch.zeros(sum(self.sizes), dtype=torch.float64)
        parameters[: self.sizes[0]] = self._grid.T @ density
        _, log_density, _ = parameters.split(self.sizes)
        # uniform views are a stationary point
        log_density += _UNEVEN * torch.randn(len(log_density), generator=generator, dtype=torch.float64)
        power = (self.moments(parameters).second * self.data.moments.second).sum()
        scale = power / self.moments(parameters).second.square().sum()
        parameters[: self.sizes[0]] *= float(scale.clamp_min(1e-12)) ** 0.5
        return parameters


def recovered(
    data: EmpiricalMoments,
    basis: BallBasis,
    shift_std: float,
    options: RecoveryOptions,
    generator: torch.Generator,
    operators: Tensor | None = None,
) -> Iterator[Recovered]:
    """Yield the map that each start leads to.

    Parameters
    ----------
    data : EmpiricalMoments
    basis : BallBasis
    shift_std : float
        Of the shifts, as a share of the box.
    options : RecoveryOptions
    generator : torch.Generator
    operators : Tensor, shape (g, 3, 3), optional
        Of the point group of the map.
    """
    objective = MomentObjective(
        data, basis, options.views_degree, options.fits_shifts, shift_std, operators, options.positivity
    )
    for _ in range(options.starts):
        start = objective.random_start(generator).numpy()
        found = minimize(
            objective.value_and_gradient, start, jac=True, method="L-BFGS-B",
            options={"maxiter": options.iterations, "maxfun": 2 * options.iterations, "maxcor": 20, "ftol": 1e-10,
                     "gtol": 0.0},
        )  # fmt: skip
        parameters = torch.from_numpy(found.x)
        first, second = relative_errors(objective.moments(parameters), data.moments, data.ring, data.weight)
        coefficients, log_density, shift = objective.split(parameters)
        yield Recovered(coefficients, log_density, float(shift), float(first), float(second), float(found.fun))
