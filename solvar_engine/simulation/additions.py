"""All that images show beside the molecule and noise, together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from solvar_engine.simulation.background import Backgrounds
from solvar_engine.simulation.effects import MicroscopeEffects
from solvar_engine.simulation.junk import JunkImages
from solvar_engine.simulation.neighbours import Neighbours
from solvar_engine.simulation.particles import ImageModel


def additions(
    model: ImageModel, effects: MicroscopeEffects, scale: float, snr: float, diameter: float, seed: int
) -> list[Callable[[slice], Tensor]]:
    """Make what :func:`~.particles.noisy_images` is to add to the images.

    Parameters
    ----------
    model : ImageModel
    effects : MicroscopeEffects
        Those with which the particles were drawn.
    scale : float
        Unit of the molecule, in units of the noise's standard deviation.
    snr : float
        Variance of the molecule's images, in units of the noise's variance.
    diameter : float
        Of the molecule, in fractions of the box.
    seed : int

    Returns
    -------
    list of functions
        Rows -> images (m, y, x), where the molecule is; empty without effects.
    """
    particles, box_size, pixel_size = model.particles, model.box_size, model.pixel_size
    result: list[Callable[[slice], Tensor]] = []
    if effects.background:
        result.append(Backgrounds(len(particles), effects.background, box_size, seed, model.molecule.device))
    if effects.neighbours:
        result.append(
            Neighbours(
                model.molecule, particles, effects.neighbours, box_size, pixel_size,
                diameter=diameter, scale=scale, seed=seed,
            )
        )  # fmt: skip
    if effects.junk:
        result.append(
            JunkImages(
                particles.junk, particles.pose, particles.ctf, box_size, pixel_size,
                signal_variance=snr, seed=seed, device=model.molecule.device,
            )
        )  # fmt: skip
    return result
