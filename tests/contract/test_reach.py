"""Which places of the latent space have particles around them, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Latents, Reach


def reach_of(z: np.ndarray, precision: float, is_outlier: np.ndarray | None = None) -> Reach:
    """Reach of particles that are all placed alike."""
    count, rank = z.shape
    return Reach.of(Latents(z, np.tile(precision * np.eye(rank), (count, 1, 1)), np.ones(count)), is_outlier)


def normal(count: int, rank: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, rank))


@pytest.mark.parametrize(("count", "rank"), [(300, 1), (3_000, 1), (100_000, 1), (300, 2), (3_000, 2), (3_000, 10)])
def test_normal_particles_reach_some_deviations_far(count: int, rank: int) -> None:
    """Whatever their number, and how well they are placed; along one coordinate, however many there are."""
    along = np.array([0.0, 2.0, -2.5, 6.0, -9.0])[:, None] * np.eye(rank)[0]
    for precision in (1.5, 25.0):
        reach = reach_of(normal(count, rank), precision)
        excess = reach.excess(along, np.arange(rank))
        assert (excess > 1).tolist() == [False, False, False, True, True]
        # does not depend on the units of the coordinates
        other = reach_of(70 * normal(count, rank), precision / 70**2)
        np.testing.assert_allclose(other.excess(70 * along, np.arange(rank)), excess, rtol=1e-6)


def test_places_between_groups_and_inside_a_ring_are_empty() -> None:
    two = np.concatenate([0.2 * normal(2_000, 2) + [2, 0], 0.2 * normal(500, 2) - [2, 0]])
    places = np.array([[2, 0], [-2, 0], [0, 0], [2.3, 0.3], [2, 2]])
    assert (reach_of(two, 25.0).excess(places, np.arange(2)) > 1).tolist() == [False, False, True, False, True]
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 5_000)
    ring = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * normal(5_000, 2)
    inside, on = reach_of(ring, 9.0).excess(np.array([[0, 0], [0, 3]]), np.arange(2))
    assert inside > 1 > on  # though each coordinate alone is among the particles


def test_a_place_that_uncertainty_explains_is_no_extrapolation() -> None:
    """Particles of which little is known crowd at the mean; the states that they may have do not."""
    shrunk = 0.1 * normal(1_000, 1)
    assert reach_of(shrunk, 1.0).excess(np.array([[2.0]]), [0])[0] < 1 < reach_of(shrunk, 100.0).excess([[2.0]], [0])[0]


def test_outliers_do_not_count() -> None:
    z = np.concatenate([normal(1_000, 1), normal(200, 1) + 50])
    place = np.array([[50.0]])
    assert reach_of(z, 9.0).excess(place, [0])[0] < 1 < reach_of(z, 9.0, z[:, 0] > 25).excess(place, [0])[0]


def test_the_sentence_says_which_how_many_and_how_far() -> None:
    reach = reach_of(normal(2_000, 2), 9.0)
    names = [f"Row {number}" for number in (1, 2, 3)]
    with pytest.raises(UserError, match=r"^Row 2 \(z_1 = 0, z_2 = 8\) .* along z_2 \(2 of 3 are such\)"):
        reach.refuse_beyond(np.array([[0, 0], [0, 8.0], [9, 0]]), np.arange(2), names)
    ring = reach_of(normal(2_000, 2) / np.linalg.norm(normal(2_000, 2), axis=1)[:, None], 900.0)
    with pytest.raises(UserError, match=r"far from all particles, \d+\.\d times as far"):
        ring.refuse_beyond(np.zeros((1, 2)), np.arange(2), names)
    reach.refuse_beyond(np.zeros((1, 2)), np.arange(2), names)
