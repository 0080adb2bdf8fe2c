"""Orientations with equal weights: a spherical design of views, each with evenly spaced in-plane angles."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.imaging.harmonics import real_harmonics

_ITERATIONS, _TOLERANCE, _DAMPING = 40, 1e-12, 0.1


def spherical_design(points: int, degree: int) -> Tensor:
    """Points on the sphere over which all harmonics up to a degree, but the constant one, sum to zero.

    Found from a Fibonacci lattice by Levenberg-Marquardt steps; about (degree + 1)^2 / 2 points are needed.

    Returns
    -------
    Tensor, shape (points, 3), float64

    Raises
    ------
    ValueError
        If there are too few points.
    """
    number = np.arange(points) + 0.5
    angles = np.concatenate((np.arccos(1 - 2 * number / points), math.pi * (1 + math.sqrt(5)) * number))
    for _ in range(_ITERATIONS):
        means = _harmonics(angles, degree).mean(axis=0)
        if np.abs(means).max() < _TOLERANCE:
            return _directions(angles)
        slopes = _derivative(angles, degree)
        damping = (_DAMPING * np.linalg.norm(means)) ** 2 * np.eye(len(angles))
        angles = angles - np.linalg.solve(slopes.T @ slopes + damping, slopes.T @ means)
    raise ValueError(f"no spherical design of degree {degree} with {points} points was found: take more points")


def _directions(angles: NDArray[np.float64]) -> Tensor:
    polar, azimuth = torch.from_numpy(angles).chunk(2)
    return torch.stack((polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()), dim=1)


def _harmonics(angles: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """All but the constant one, shape (points, (degree + 1)^2 - 1)."""
    return real_harmonics(degree, _directions(angles))[:, 1:].numpy()


def _derivative(angles: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Of the means by polar angles and azimuths, central differences of all points at once: each has its own terms."""
    columns = []
    for moved in np.kron(np.eye(2), np.full(len(angles) // 2, 1e-5)):
        change = _harmonics(angles + moved, degree) - _harmonics(angles - moved, degree)
        columns.append(change.T / (2e-5 * len(change)))
    return np.concatenate(columns, axis=1)


def orientations(views: Tensor, angles: int) -> Tensor:
    """Rotations whose third row is a view, turned about it in equal steps (Paul 2024, section 2.4.2).

    Parameters
    ----------
    views : Tensor, shape (q, 3)
    angles : int

    Returns
    -------
    Tensor, shape (q * angles, 3, 3), float64
        Rows are the axes of the image, x and y, and the view.
    """
    axis = torch.eye(3, dtype=torch.float64)[views.abs().argmin(dim=1)]
    first = torch.linalg.cross(axis, views)
    first = first / first.norm(dim=1, keepdim=True)
    second = torch.linalg.cross(views, first)
    angle = 2 * math.pi * torch.arange(angles, dtype=torch.float64) / angles
    cosine, sine = angle.cos()[None, :, None], angle.sin()[None, :, None]
    x = cosine * first[:, None] + sine * second[:, None]
    y = -sine * first[:, None] + cosine * second[:, None]
    return torch.stack((x, y, views[:, None].expand_as(x)), dim=2).flatten(0, 1)
