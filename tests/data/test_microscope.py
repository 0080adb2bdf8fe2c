"""Images through an imperfect microscope are prepared as if it were perfect; premultiplied ones as if they were not."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import sentences_of
from solvar_engine.data.preprocess import prepare_particles
from tests.imaging.closed_form import asymmetric_atoms, relative_error
from tests.imaging.microscope import IMPERFECT, Microscope

BOX, PIXEL_SIZE, COUNT = 64, 3.0, 6
ATOMS = asymmetric_atoms(28)  # what the transfer function spreads is within the box


def particles_of(folder, write_particles, microscope: Microscope, told: Microscope, multiplied=False, noise=0.0):
    """List of images of ATOMS; ``told`` is what the optics table says."""
    blank, flag = np.zeros((COUNT, BOX, BOX), np.float32), {"rlnCtfDataAreCtfPremultiplied": [int(multiplied)]}
    options = {"pixel_size": PIXEL_SIZE, "optics": {**told.columns(), **flag}}
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU",
             "rlnDefocusV", "rlnDefocusAngle")  # fmt: skip
    table = StarFile.read(write_particles(folder, blank, **options)).particles.numbers(*names)
    rot, tilt, psi, x, y, *defocus = (table[name] for name in names)
    rows = zip(relion_to_rotation(rot, tilt, psi), np.stack([x, y], axis=1), np.stack(defocus, axis=1), strict=True)
    images = np.stack([
        microscope.image(lambda k, turn=turn: ATOMS.transform(k @ turn[:, :2].T), *values, BOX, PIXEL_SIZE)
        for turn, *values in rows
    ])  # fmt: skip
    images = images + noise * np.random.default_rng(3).normal(size=images.shape)
    if multiplied:
        k = np.fft.fftfreq(BOX, PIXEL_SIZE)
        seen = np.stack(np.meshgrid(k, k, indexing="xy"), axis=-1) @ np.array(told.magnification).T
        transfer = np.stack([told.ctf(seen[..., 0], seen[..., 1], values) for values in np.stack(defocus, axis=1)])
        images = np.fft.ifft2(np.fft.fft2(images) * transfer).real
    return ParticleStack.from_star(write_particles(folder, images.astype(np.float32), **options))


def batch_of(stack: ParticleStack, box_size: int = BOX):
    source = prepare_particles(stack, box_size, scratch=None)
    source = source.with_noise(torch.ones_like(source.noise_variance))
    (batch,) = source.batches(torch.arange(COUNT), source.disk, COUNT)
    images = batch.with_background() / source.image_scale[:, None]
    slices = np.stack([
        ATOMS.transform(source.disk.pixels.numpy() / BOX @ turn.T[:2]) / BOX for turn in batch.rotation.double().numpy()
    ])  # fmt: skip
    inner = (source.disk.shell > 2) & (source.disk.shell < 0.45 * box_size)
    return images[:, inner].numpy() * source.grey_unit, batch.ctf[:, inner].numpy() * slices[:, inner], batch


@pytest.mark.parametrize("box_size", [BOX, 40])
def test_images_of_an_imperfect_microscope_are_slices_times_ctf(write_particles, tmp_path, box_size):
    images, expected, _ = batch_of(particles_of(tmp_path, write_particles, IMPERFECT, IMPERFECT), box_size)
    assert relative_error(images, expected) < 0.01
    images, expected, _ = batch_of(particles_of(tmp_path, write_particles, IMPERFECT, Microscope()), box_size)
    assert relative_error(images, expected) > 0.3


def test_premultiplied_images_are_those_before_except_near_zeros(write_particles, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plain = batch_of(particles_of(tmp_path / "plain", write_particles, IMPERFECT, IMPERFECT, noise=2.0))
    multiplied = batch_of(
        particles_of(tmp_path / "multiplied", write_particles, IMPERFECT, IMPERFECT, multiplied=True, noise=2.0)
    )
    assert "6 of 6 images are multiplied with their CTF" in caplog.text
    seen = multiplied[2].ctf != 0
    assert 0.9 < float(seen.float().mean()) < 0.99
    assert torch.equal(seen, multiplied[2].kept_variance() > 0)
    np.testing.assert_allclose(multiplied[2].ctf[seen], plain[2].ctf[seen], rtol=1e-6)
    # off the grid of a distorted image coefficients mix with those near zeros, which are absent
    assert relative_error(multiplied[0], plain[0]) < 0.25
    perfect = Microscope(odd=IMPERFECT.odd, even=IMPERFECT.even)
    plain = batch_of(particles_of(tmp_path / "plain", write_particles, perfect, perfect, noise=2.0))
    multiplied = batch_of(
        particles_of(tmp_path / "multiplied", write_particles, perfect, perfect, multiplied=True, noise=2.0)
    )
    shown = multiplied[1] != 0
    assert relative_error(multiplied[0][shown], plain[0][shown]) < 0.02


def test_noise_of_premultiplied_images_is_that_before(write_particles, tmp_path):
    perfect = Microscope(amplitude_contrast=0.1)
    noise = [
        prepare_particles(particles_of(tmp_path / str(flag), write_particles, perfect, perfect, flag, 2.0), BOX,
                          scratch=None) for flag in (False, True)
    ]  # fmt: skip
    assert not list(sentences_of(noise[0], "")) and not list(sentences_of(noise[1], ""))
    plain, multiplied = (source.noise_variance[0] * source.grey_unit**2 for source in noise)
    assert abs(float((multiplied[6:] / plain[6:] - 1).mean())) < 0.01


def test_nyquist_lines_at_frequencies_of_either_sign_raise_no_doubt(write_particles, tmp_path):
    """Of an astigmatic image the transfer function at N / 2 is not that at -N / 2."""
    images, k = np.random.default_rng(2).normal(size=(100, 20, 20)), np.fft.fftfreq(20, PIXEL_SIZE)
    options = {"pixel_size": PIXEL_SIZE, "optics": {"rlnCtfDataAreCtfPremultiplied": [1]}}
    table = StarFile.read(write_particles(tmp_path, images.astype(np.float32), **options)).particles
    defocus = np.stack([table.numbers(f"rlnDefocus{name}")[f"rlnDefocus{name}"] for name in ("U", "V", "Angle")], 1)
    transfer = np.stack([Microscope().ctf(*np.meshgrid(k, k), values) for values in defocus])
    multiplied = np.fft.ifft2(np.fft.fft2(images) * transfer).real.astype(np.float32)
    path = write_particles(tmp_path, multiplied, **options)
    source = prepare_particles(ParticleStack.from_star(path), 20, scratch=None)
    assert 0 < float(source.near_zeros.max()) < 0.005
    assert not list(sentences_of(source, ""))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rlnOddZernike": ["[1,x,3]"]}, r"'\[1,x,3\]', column rlnOddZernike of .*, is no number or list of some"),
        ({"rlnEvenZernike": ["[1.2.3,4]"]}, "is no number or list of some"),
        ({"rlnEvenZernike": ["[1,nan]"]}, "is no number or list of some"),
        ({"rlnEvenZernike": ["[1,,2]"]}, "is no number or list of some"),
        ({"rlnBeamTiltX": ["[1]x"]}, "column rlnBeamTiltX of .*, is no number or list of some"),
        ({"rlnMagMat11": [0]}, r"The magnification matrix 1, 0, 0, 0 \(rlnMagMat00 to 11\) of .* cannot be"),
        ({"rlnMagMat00": [-1]}, "cannot be: correct it"),
    ],
)
def test_aberrations_that_cannot_be_are_refused(columns, text, write_particles, tmp_path):
    with pytest.raises(UserError, match=text):
        ParticleStack.from_star(write_particles(tmp_path, optics=columns))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rlnOddZernike": ["[0,0,0,0,0,0,0,0,1]"]}, "rlnOddZernike of .* has 9 coefficients, where RELION writes 2,"),
        ({"rlnEvenZernike": ["[0, 0, 0, 0, 0, 1]"]}, "rlnEvenZernike of .* has 6 coefficients, where RELION writes 1,"),
        ({"rlnBeamTiltX": [0], "rlnBeamTiltY": [-50]}, "has a beam tilt of 50 mrad, more than microscopes have"),
        ({"rlnMagMat00": [1.1], "rlnMagMat11": [1.1]}, r"\(rlnMagMat00 to 11\) of .* scale images by 1.1 to 1.1, more"),
        ({"rlnOddZernike": ["[0 1]"], "rlnEvenZernike": ["[1,0,0,0]"], "rlnMagMat00": [1.05]}, None),
    ],
)
def test_aberrations_that_hardly_can_be_are_doubted(columns, text, write_particles, tmp_path):
    stack = ParticleStack.from_star(write_particles(tmp_path, optics=columns))
    assert len(stack.cautions) == (text is not None)
    assert text is None or re.search(text, stack.cautions[0])


def test_only_what_is_there_is_said_to_be_corrected(write_particles, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cases = {
        "beam tilt": Microscope(tilt=(1.0, 0.0)), "higher-order aberrations": Microscope(odd=(0.0, 1.0)),
        "beam tilt, anisotropic magnification": Microscope(tilt=(0.0, 1.0), magnification=((1.01, 0.0), (0.0, 1.0))),
    }  # fmt: skip
    for said, microscope in cases.items():
        caplog.clear()
        ParticleStack.from_star(write_particles(tmp_path, optics=microscope.columns()))
        assert [record.getMessage() for record in caplog.records] == [f"Corrected for: {said}"]


@pytest.mark.parametrize("wrong", ["not multiplied", "of another defocus", "in larger boxes"])
def test_images_that_are_not_multiplied_as_is_said(write_particles, tmp_path, wrong):
    perfect = Microscope()
    stack = particles_of(tmp_path, write_particles, perfect, perfect, multiplied=wrong != "not multiplied", noise=2.0)
    star = StarFile.read(tmp_path / "particles.star")
    changes = {}
    if wrong == "of another defocus":
        changes = {"rlnDefocusU": star.particles.numbers("rlnDefocusU")["rlnDefocusU"] + 1000}
    if wrong == "in larger boxes":
        images = stack.images(range(COUNT))[:, 20:44, 20:44].numpy()
        path = write_particles(tmp_path, images, pixel_size=PIXEL_SIZE,
                               optics={"rlnCtfDataAreCtfPremultiplied": [1]})  # fmt: skip
    else:
        table = star.particles.with_columns(changes)
        optics = star.optics.with_columns({"rlnCtfDataAreCtfPremultiplied": [1]})
        path = tmp_path / "wrong.star"
        star.replace(star.particles, table).replace(star.optics, optics).write(path)
    source = prepare_particles(ParticleStack.from_star(path), 24, scratch=None)
    (sentence,) = sentences_of(source, path)
    assert f" of 6 images of {path} are said to be multiplied with their CTF" in sentence
    assert int(sentence[0]) >= 5
