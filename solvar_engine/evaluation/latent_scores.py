"""How well latent coordinates tell the state of a particle: the truth predicted from z, cross-validated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

NEIGHBOURS = 30
FOLDS = 5

_POLYNOMIAL_COMPONENTS = 12
"""Cubic features of more coordinates than this (455 features) would not fit into memory."""


def latent_r2(z: NDArray[np.floating], coordinates: NDArray[np.floating]) -> float | None:
    """Coefficient of determination of the state coordinates predicted by 30 nearest neighbours.

    Latents are standardised per component; predictions are five-fold cross-validated (shuffled with a fixed
    seed); the result is averaged over the coordinates that vary.

    Parameters
    ----------
    z : ndarray, shape (n, r)
    coordinates : ndarray, shape (n, d)
        True coordinates of the particles.

    Returns
    -------
    float or None
        At most 1; None without a component, without a coordinate that varies, or with fewer particles than
        folds.
    """
    varying = _varying(coordinates)
    if not _is_scorable(z, varying):
        return None
    count = _neighbours(len(z))
    model = make_pipeline(StandardScaler(), KNeighborsRegressor(n_neighbors=count))
    return float(r2_score(varying, cross_val_predict(model, z, varying, cv=_folds())))


def latent_r2_poly(z: NDArray[np.floating], coordinates: NDArray[np.floating]) -> float | None:
    """Coefficient of determination of the state coordinates predicted by a cubic polynomial (ridge).

    As :func:`latent_r2`, with the leading twelve components at most.

    Parameters
    ----------
    z : ndarray, shape (n, r)
        Sorted by eigenvalue.
    coordinates : ndarray, shape (n, d)
        True coordinates of the particles.
    """
    varying = _varying(coordinates)
    if not _is_scorable(z, varying):
        return None
    model = make_pipeline(StandardScaler(), PolynomialFeatures(3, include_bias=False), Ridge(1.0))
    leading = z[:, :_POLYNOMIAL_COMPONENTS].astype(np.float64)
    return float(r2_score(varying, cross_val_predict(model, leading, varying, cv=_folds())))


def state_accuracy(z: NDArray[np.floating], state: NDArray[np.integer]) -> float | None:
    """Share of the particles whose state most of their 30 nearest neighbours have.

    Standardised and cross-validated as :func:`latent_r2`.

    Parameters
    ----------
    z : ndarray, shape (n, r)
    state : ndarray, shape (n,)
        True states.

    Returns
    -------
    float or None
        0 to 1; None without a component, with one state only, or with fewer particles of a state than folds, on
        average.
    """
    count = len(np.unique(state))
    if not _is_scorable(z, state[:, None]) or count < 2 or len(state) < FOLDS * count:
        return None
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=_neighbours(len(z))))
    return float((cross_val_predict(model, z, state, cv=_folds()) == state).mean())


def states_are_discrete(coordinates: NDArray[np.floating], state: NDArray[np.integer]) -> bool:
    """Tell whether states are classes rather than points of a continuous motion.

    They are if there are several and no coordinate (n, d) takes a value other than 0 and 1 (presence or absence), or
    there is no coordinate at all.
    """
    return len(np.unique(state)) > 1 and bool(np.isin(coordinates, (0.0, 1.0)).all())


def _varying(coordinates: NDArray[np.floating]) -> NDArray[np.floating]:
    """Columns that are not constant."""
    return coordinates[:, np.ptp(coordinates, axis=0) > 0] if len(coordinates) else coordinates[:, :0]


def _is_scorable(z: NDArray[np.floating], target: NDArray[np.generic]) -> bool:
    return z.shape[1] > 0 and target.shape[1] > 0 and len(z) >= 2 * FOLDS


def _neighbours(count: int) -> int:
    """30, or what a small training fold has."""
    return min(NEIGHBOURS, count - -(-count // FOLDS))


def _folds() -> KFold:
    return KFold(FOLDS, shuffle=True, random_state=0)
