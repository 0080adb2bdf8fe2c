"""Effects of microscopes: each alone against what it promises, computed in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.contract.angles import rotation_to_relion
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Ctf
from solvar_engine.simulation.additions import additions
from solvar_engine.simulation.background import Backgrounds
from solvar_engine.simulation.effects import NO_EFFECTS, MicroscopeEffects
from solvar_engine.simulation.junk import JunkKind
from solvar_engine.simulation.maps import MapMolecule
from solvar_engine.simulation.neighbours import Neighbours, equivalent_diameter
from solvar_engine.simulation.noise import coloured, noise_amplitude
from solvar_engine.simulation.particles import (
    ImageModel,
    SimulatedParticles,
    draw_particles,
    noisy_images,
    signal_variance,
)
from solvar_engine.simulation.phantoms import Phantom
from solvar_engine.simulation.views import AXIS_SHARES, CONCENTRATION, with_preferred_views

BOX, PIXEL_SIZE, DIAMETER = 32, 6.0, 0.62
ALL = MicroscopeEffects(
    background=1.5, neighbours=0.5, coloured_noise=4.0, uneven_views=0.6, junk=0.2, defocus_error=300.0
)


def blobs(states: int = 2) -> Phantom:
    """A molecule of a few wide atoms, whose images are known in real space to rounding."""
    rng = np.random.default_rng(3)
    atoms = torch.from_numpy(rng.uniform(-0.15, 0.15, (states, 12, 3)))
    mass = torch.from_numpy(rng.uniform(0.5, 1.5, (states, 12)))
    return Phantom("blobs", atoms, mass, np.zeros((states, 0)), np.full(states, 1 / states), sigma=1.5 / BOX)


def draw(count: int, effects: MicroscopeEffects = NO_EFFECTS, seed: int = 0, **errors: float) -> SimulatedParticles:
    return draw_particles(blobs(), count, BOX, PIXEL_SIZE, seed, effects=effects, **errors)


def constant_ctf(ctf: Ctf) -> Ctf:
    """A transfer function that is 1 everywhere."""
    zero, one = torch.zeros_like(ctf.cs), torch.ones_like(ctf.cs)
    return replace(ctf, defocus_u=zero, defocus_v=zero, cs=zero, amplitude_contrast=one)


def in_real_space(molecule: Phantom, state: int, rotation: Tensor, centre_px: np.ndarray) -> np.ndarray:
    """Image (y, x) of a state as a sum of Gaussians about a point, (x, y) from the box centre in px."""
    atoms = molecule.atoms[state].numpy() @ rotation.double().numpy() * BOX
    place = np.arange(BOX) - BOX // 2
    sigma = molecule.sigma * BOX
    x, y = (
        np.exp(-((place - atoms[:, axis, None] - centre_px[axis]) ** 2) / (2 * sigma**2)) / np.sqrt(2 * np.pi) / sigma
        for axis in (0, 1)
    )
    return np.einsum("a,ay,ax->yx", molecule.mass[state].numpy(), y, x)


# --- background


def test_backgrounds_are_second_order_surfaces_of_the_asked_strength() -> None:
    strength, count = 1.5, 4000
    images = Backgrounds(count, strength, BOX, seed=0)(slice(0, count)).double().numpy()
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    columns = np.stack([np.ones_like(x), x, y, x**2, y**2, x * y], axis=-1).reshape(-1, 6)
    fitted, residual, _, _ = np.linalg.lstsq(columns, images.reshape(count, -1).T, rcond=None)
    assert residual.max() < 1e-6
    edge = BOX / 2
    assert fitted[0].std() == pytest.approx(strength, rel=0.04)
    for slope in fitted[1:3]:  # per px
        assert (slope * BOX).std() == pytest.approx(strength, rel=0.04)
    for curvature in fitted[3:5]:  # edge against centre
        assert (curvature * edge**2).std() == pytest.approx(strength / 4, rel=0.04)
    assert (fitted[5] * edge**2).std() == pytest.approx(strength / 4, rel=0.04)
    assert np.abs(np.corrcoef(fitted) - np.eye(6)).max() < 0.06


# --- noise


@pytest.mark.parametrize("box_size", [32, 33])
def test_coloured_noise_has_the_spectrum_and_the_variance_of_its_definition(box_size: int) -> None:
    excess, pixel_size = 6.0, 4.0
    white = np.random.default_rng(0).standard_normal((1500, box_size, box_size), dtype=np.float32)
    noise = coloured(white, noise_amplitude(excess, box_size, pixel_size))
    assert noise.dtype == np.float32
    assert float((noise**2).mean()) == pytest.approx(1.0, rel=0.02)
    power = (np.abs(np.fft.fft2(noise, norm="ortho")) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(box_size, pixel_size)
    radius = np.hypot(frequency[:, None], frequency)
    expected = 1 + excess / (1 + (50.0 * radius) ** 2)
    expected /= expected.mean()
    for inner, outer in ((0, 0.5), (0.5, 1.5), (1.5, 3), (3, 6), (6, 10), (10, 16), (16, 24)):
        ring = (radius >= inner / (box_size * pixel_size)) & (radius < outer / (box_size * pixel_size))
        tolerance = 4 / np.sqrt(len(white) * ring.sum() / 2)
        assert power[ring].mean() == pytest.approx(expected[ring].mean(), rel=tolerance)
    # noise has no preferred place
    assert float((noise**2).mean(axis=0).std()) < 1.5 * np.sqrt(2 / len(white))


# --- views


def test_views_are_concentrated_about_three_axes_and_in_plane_angles_are_uniform() -> None:
    count, share = 20000, 0.7
    before = random_rotations(count, torch.Generator().manual_seed(1))
    after = with_preferred_views(before, share, seed=0)
    identity = after @ after.transpose(1, 2) - torch.eye(3)
    assert float(identity.abs().max()) < 1e-5 and float(torch.linalg.det(after).min()) > 0.99
    changed = (after != before).flatten(1).any(dim=1)
    assert int(changed.sum()) == round(share * count)
    # second moments of exp(concentration cos) by quadrature
    angle = np.linspace(0, np.pi, 20001)
    density = np.exp(CONCENTRATION * (np.cos(angle) - 1)) * np.sin(angle)
    along = float((density * np.cos(angle) ** 2).sum() / density.sum())
    preferred = [part * along + (1 - part) * (1 - along) / 2 for part in AXIS_SHARES]
    expected = np.sort(share * np.array(preferred) + (1 - share) / 3)
    direction = after[:, :, 2].double()
    moments = torch.linalg.eigvalsh(direction.T @ direction / count)
    assert moments.numpy() == pytest.approx(expected, abs=0.012)
    # one side of each axis: the mean direction of the first is its share times the mean cosine
    mean_cosine = float((density * np.cos(angle)).sum() / density.sum())
    length = share * mean_cosine * np.linalg.norm(AXIS_SHARES)
    assert float(direction.mean(dim=0).norm()) == pytest.approx(length, abs=0.02)
    psi = np.radians(rotation_to_relion(after[changed].numpy())[2])
    assert abs(np.exp(1j * psi).mean()) < 0.03 and abs(np.exp(2j * psi).mean()) < 0.03


def test_the_share_of_views_only_adds_particles() -> None:
    before = random_rotations(200, torch.Generator().manual_seed(1))
    some, most = (with_preferred_views(before, share, seed=4) for share in (0.3, 0.8))
    changed = (some != before).flatten(1).any(dim=1)
    assert torch.equal(some[changed], most[changed])
    assert not torch.equal(with_preferred_views(before, 0.8, seed=5), most)


# --- neighbours


def neighbours(particles: SimulatedParticles, share: float, **options: float) -> Neighbours:
    values = {"diameter": DIAMETER, "scale": 1.0, **options}
    return Neighbours(blobs(), particles, share, BOX, PIXEL_SIZE, seed=0, **values)  # type: ignore[arg-type]


def test_a_neighbour_is_another_projection_beside_the_particle() -> None:
    """Against Gaussians in real space, where nothing can come back in at the other side of the box."""
    particles = draw(40, contrast_std=0.3)
    particles = replace(particles, ctf=constant_ctf(particles.ctf))
    beside = neighbours(particles, 1.0, diameter=0.5, scale=2.0)
    images = beside(slice(5, 40)).numpy()
    visible = 0
    for row, image in enumerate(images, start=5):
        centre = beside.displacement_px[row].numpy() - particles.pose.shift[row].numpy() / PIXEL_SIZE
        expected = in_real_space(blobs(), int(beside.state[row]), beside.rotation[row], centre)
        expected *= 2.0 * float(particles.contrast[row])
        assert np.abs(image - expected).max() < 2e-3
        visible += expected.max() > 0.1
    assert visible > 25


def test_neighbours_have_the_contrast_transfer_of_their_image() -> None:
    """Far inside, where the box cuts nothing off, an image is the ctf times that with a constant ctf."""
    particles = draw(6)
    with_ctf = neighbours(particles, 1.0, diameter=0.02)(slice(0, 6))
    without = neighbours(replace(particles, ctf=constant_ctf(particles.ctf)), 1.0, diameter=0.02)(slice(0, 6))
    disk = HalfDisk.create(BOX)
    expected = images_to_disk(without, disk) * ctf_values(particles.ctf, disk, PIXEL_SIZE)
    found = images_to_disk(with_ctf, disk)
    assert float((found - expected).norm() / expected.norm()) < 0.05  # the fringes that leave the box


def test_neighbours_stand_about_a_diameter_away_in_all_directions() -> None:
    beside = neighbours(draw(3000), 0.3)
    assert int(beside.is_shown.sum()) == 900
    distance = beside.displacement_px.norm(dim=1) / (DIAMETER * BOX)
    assert 0.9 <= float(distance.min()) < 0.905 and 1.295 < float(distance.max()) <= 1.3001
    assert float(distance.mean()) == pytest.approx(1.1, abs=0.01)
    angle = torch.atan2(beside.displacement_px[:, 1], beside.displacement_px[:, 0])
    assert float(torch.polar(torch.ones(3000), angle).mean().abs()) < 0.05
    images = beside(slice(0, 300))
    assert torch.equal(images.flatten(1).any(dim=1), beside.is_shown[:300])


def test_junk_has_no_neighbours() -> None:
    particles = draw(100, MicroscopeEffects(junk=0.4))
    assert torch.equal(neighbours(particles, 1.0).is_shown, ~particles.is_junk)


@pytest.mark.parametrize("box_size", [32, 33])
def test_maps_and_atoms_make_the_same_padded_projections(box_size: int) -> None:
    phantom = blobs(2)
    maps = MapMolecule.from_maps("blobs", [phantom.volume(state, box_size) for state in (0, 1)], PIXEL_SIZE)
    disk, state = HalfDisk.create(2 * box_size), torch.tensor([0, 1, 1])
    rotation = random_rotations(3, torch.Generator().manual_seed(0))
    images = [
        disk_to_images(molecule.project_padded(state, rotation, disk, 2), disk, 2 * box_size)
        for molecule in (phantom, maps)
    ]
    assert float((images[0] - images[1]).abs().max()) < 5e-3 * float(images[0].max())
    own = HalfDisk.create(box_size)
    start = box_size - box_size // 2
    box = slice(start, start + box_size)
    inside = disk_to_images(phantom.project(state, rotation, own), own, box_size)
    assert float((images[0][:, box, box] - inside).abs().max()) < 5e-3 * float(inside.max())


def test_the_diameter_is_that_of_a_ball() -> None:
    z, y, x = np.mgrid[:40, :40, :40] - 20
    ball = torch.from_numpy((x**2 + y**2 + z**2 <= 12.0**2).astype(np.float32))
    assert equivalent_diameter(ball) == pytest.approx(24 / 40, rel=0.01)


# --- junk


def test_a_share_is_junk_of_three_kinds() -> None:
    junk = draw(1000, MicroscopeEffects(junk=0.2)).junk
    assert [int((junk == kind).sum()) for kind in JunkKind] == [800, 100, 50, 50]
    assert int((draw(3, MicroscopeEffects(junk=0.9)).junk == JunkKind.NONE).sum()) == 1


def test_junk_shows_anything_but_the_molecule_and_does_not_count_as_signal() -> None:
    effects, snr = MicroscopeEffects(junk=0.5), 0.3
    particles = draw(240, effects)
    model = ImageModel(blobs(), particles, BOX, PIXEL_SIZE)
    clean = disk_to_images(model.coefficients(slice(0, 240)), model.disk, BOX)
    assert torch.equal(clean.flatten(1).any(dim=1), ~particles.is_junk)
    shown = clean[~particles.is_junk].double().var(dim=(1, 2), correction=0)
    assert signal_variance(model) == pytest.approx(float(shown.mean()), rel=1e-4)
    (junk,) = additions(model, effects, 1.0, snr, DIAMETER, seed=0)
    images = junk(slice(0, 240))
    variance = images.var(dim=(1, 2), correction=0)
    expected = {JunkKind.NONE: 0.0, JunkKind.EMPTY: 0.0, JunkKind.ICE: 10 * snr, JunkKind.OTHER: snr}
    for kind, value in expected.items():
        assert variance[particles.junk == kind].numpy() == pytest.approx(value, rel=1e-3)
    # ice is bright and smooth: half of its energy lies in the first shells
    ice = images[particles.junk == JunkKind.ICE]
    assert float(ice.flatten(1).amax(dim=1).min()) > 3 * float(-ice.flatten(1).amin(dim=1).max()) / 2
    power = images_to_disk(ice, model.disk).abs().square()
    assert float(power[:, model.disk.shell <= 3].sum() / power.sum()) > 0.5


# --- defocus


def test_both_defoci_are_wrong_by_the_same_error() -> None:
    particles = draw(4000, MicroscopeEffects(defocus_error=250.0))
    error_u = particles.given_ctf.defocus_u - particles.ctf.defocus_u
    error_v = particles.given_ctf.defocus_v - particles.ctf.defocus_v
    assert float((error_u - error_v).abs().max()) < 0.01
    assert float(error_u.std()) == pytest.approx(250.0, rel=0.04) and abs(float(error_u.mean())) < 15.0
    assert torch.equal(particles.given_ctf.defocus_angle, particles.ctf.defocus_angle)


# --- together


def test_no_effect_changes_what_is_drawn_for_anything_else() -> None:
    plain, spoilt = draw(50, contrast_std=0.2), draw(50, ALL, contrast_std=0.2)
    assert torch.equal(plain.state, spoilt.state) and torch.equal(plain.contrast, spoilt.contrast)
    assert torch.equal(plain.pose.shift, spoilt.pose.shift)
    assert torch.equal(plain.ctf.defocus_u, spoilt.ctf.defocus_u)
    assert not bool(plain.is_junk.any()) and torch.equal(plain.given_ctf.defocus_v, plain.ctf.defocus_v)
    rotation_only = draw(50, MicroscopeEffects(uneven_views=0.6))
    assert torch.equal(rotation_only.pose.rotation, spoilt.pose.rotation)


def test_the_images_are_the_sum_of_all_effects() -> None:
    particles = draw(60, ALL)
    model = ImageModel(blobs(), particles, BOX, PIXEL_SIZE)
    every = additions(model, ALL, 1.0, 0.5, DIAMETER, seed=0)
    assert len(every) == 3 and not additions(model, NO_EFFECTS, 1.0, 0.5, DIAMETER, seed=0)
    amplitude = noise_amplitude(ALL.coloured_noise, BOX, PIXEL_SIZE)
    images = np.concatenate(list(noisy_images(model, 1.0, 0, every, amplitude)))
    white = np.concatenate(list(noisy_images(model, 1.0, 0)))
    clean = disk_to_images(model.coefficients(slice(0, 60)), model.disk, BOX).numpy()
    added = sum(addition(slice(0, 60)).numpy() for addition in every)
    assert np.allclose(images - clean - added, coloured(white - clean, amplitude), atol=1e-4)


def test_effects_do_not_depend_on_the_batch() -> None:
    model = ImageModel(blobs(), draw(30, ALL), BOX, PIXEL_SIZE)
    for addition in additions(model, ALL, 1.0, 0.5, DIAMETER, seed=0):
        parts = torch.cat([addition(slice(0, 7)), addition(slice(7, 8)), addition(slice(8, 30))])
        assert torch.allclose(parts, addition(slice(0, 30)), atol=1e-5)
