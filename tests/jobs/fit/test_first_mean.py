"""What is said before the long work begins: poses of other images, masks beside the molecule, means of noise."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import FitParams
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.estimation.alternation.means import half_set_equations
from solvar_engine.estimation.judging.given_poses import (
    DEFOCUS_CHANGES,
    PIXEL_FACTORS,
    SHIFT_FACTORS,
    PoseEvidence,
)
from solvar_engine.imaging.aberrations import Aberrations, odd_phase_factors
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import low_pass
from solvar_engine.imaging.masks import BALL, automatic_mask, grown, share_of_density, soft_edge, sphere_mask
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Pose, Volume
from solvar_engine.jobs.decisions import ImageDecisions, read_cautions, read_decisions, record_cautions
from solvar_engine.jobs.fit.first_mean import evidence_of_poses, mask_cautions, pose_cautions
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images, settle_sign_and_masks
from solvar_engine.jobs.pose_doubts import are_foreign, gain_of_other_origins, with_frames
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean
from tests.jobs.conftest import BOX, PARTICLES, PIXEL_SIZE
from tests.reconstruction.simulated import noise


def settled(particles: Path, folder: Path, **options: str) -> tuple[ImageDecisions, list[str], torch.Tensor]:
    """Do the first stages of a fit; what they decided, of what they warn, and the mask."""
    params = FitParams(particles=str(particles), output=str(folder / "run"), rank=1, **options)
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        write_params(run, params)
        record_cautions(run, read_inputs(params).stack.cautions)
        for _ in range(2):  # the second time everything comes from the checkpoint
            job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
            with closing(job.progress):
                masks = settle_sign_and_masks(job, read_images(job))[1]
    return read_decisions(run), read_cautions(run), masks.mean


def with_changed_rows(particles: Path, path: Path, **changes) -> Path:
    """Write a list of the same images, which stay where they are, with other columns."""
    star = StarFile.read(particles)
    columns = {"rlnImageName": star.particles.text("rlnImageName"), **changes}
    columns["rlnImageName"] = [
        name.replace("@particles.mrcs", f"@{particles.parent / 'particles.mrcs'}") for name in columns["rlnImageName"]
    ]
    star.replace(star.particles, star.particles.with_columns(columns)).write(path)
    return path


def shuffled_names(particles: Path, rows: np.ndarray) -> list[str]:
    """Names of the images, those of some rows in another order."""
    names = np.array(StarFile.read(particles).particles.text("rlnImageName"))
    names[rows] = names[np.random.default_rng(0).permutation(rows)]
    return names.tolist()


def test_right_poses_and_masks_raise_no_doubt(hinge, tmp_path):
    decided, cautions, mask = settled(hinge.particles, tmp_path, mask=str(hinge.mask), focus_mask=str(hinge.mask))
    assert torch.equal(mask, read_volume(hinge.mask).data) and cautions == []
    assert decided.pose_gain > 20 * decided.pose_gain_error and not decided.poses_are_foreign


def test_a_symmetry_that_the_molecule_does_not_have_is_told(hinge, tmp_path):
    cautions = settled(hinge.particles, tmp_path, symmetry="C2")[1]
    text = r"does not have the symmetry C2: its mean without it agrees with the symmetric one by 0\.[3-8]\d only"
    assert re.search(text, cautions[0])


def test_poses_of_other_images_are_told(hinge, tmp_path):
    """In the list, and in a part of it that was joined from elsewhere."""
    names = shuffled_names(hinge.particles, np.arange(PARTICLES))
    particles = with_changed_rows(hinge.particles, tmp_path / "shuffled.star", rlnImageName=names)
    decided, cautions, _ = settled(particles, tmp_path)
    assert cautions[0].startswith(f"The orientations in {particles} do not seem to belong to its images (log-")
    assert abs(decided.pose_gain) < 4 * decided.pose_gain_error and decided.poses_are_foreign
    names = shuffled_names(hinge.particles, np.arange(PARTICLES // 2, PARTICLES))
    particles = with_changed_rows(hinge.particles, tmp_path / "joined.star", rlnImageName=names)
    (tmp_path / "second").mkdir()
    (doubt,) = settled(particles, tmp_path / "second")[1]
    assert rows_told(doubt) == pytest.approx((151, 300), abs=3) and "unlike those of the others" in doubt


@dataclass(frozen=True)
class Index:
    """Stacks whose headers have one pixel size, 0 for none."""

    paths: list[Path]
    stack: np.ndarray
    of_headers: float = 0.0

    @property
    def headers(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(voxel_size=(self.of_headers,) * 3) for _ in self.paths]


@dataclass(frozen=True)
class ListOf800:
    """What a list says of 800 images in four stacks and two folders, of two optics groups."""

    path = Path("list.star")
    group_names, pixel_size, pixel_sizes = ("one", "two"), 2.0, (2.0, 3.0)
    group: torch.Tensor = torch.arange(800) % 2
    index: Index = Index([Path(f"{folder}/{name}.mrcs") for folder in "AB" for name in "xy"], np.arange(800) // 2 % 4)
    pose: Pose = Pose(torch.eye(3).expand(800, 3, 3), torch.zeros(800, 2))
    list_row: np.ndarray | None = None

    def __len__(self) -> int:
        return 800


def rows_told(doubt: str) -> tuple[int, int]:
    """Rows that a sentence names, which are where two kinds of images meet, give or take some that tell little."""
    found = re.search("of about rows ([0-9]+) to ([0-9]+) in", doubt)
    assert found, doubt
    return int(found[1]), int(found[2])


def evidence_of(rows: torch.Tensor, signal: torch.Tensor, orientation_gain: torch.Tensor, **gains) -> PoseEvidence:
    """Of images that lose 1 by every other reading of their list, but for what is given."""

    def one(*shape: int) -> torch.Tensor:
        return torch.ones(len(rows), *shape).double()

    losses = dict(shift_gain=one(len(SHIFT_FACTORS)), ctf_gain=one(7), pixel_gain=one(len(PIXEL_FACTORS)))
    losses |= dict(defocus_gain=one(len(DEFOCUS_CHANGES)))
    losses |= dict(place_gain=one(), turn_gain=one(), move=9 * one())
    return PoseEvidence(rows, signal, orientation_gain, **{**losses, **gains})


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        (lambda row: row % 2 == 1, "of optics group two in"),
        (lambda row: row // 2 % 4 >= 2, "of B in"),
        (lambda row: row // 2 % 4 == 1, "of A/y.mrcs in"),
        (lambda row: row < 400, (1, 400)),
        (lambda row: row >= 700, (701, 800)),
        (lambda row: 330 <= row < 630, (331, 630)),  # not where blocks begin and end
    ],
)
def test_the_part_whose_poses_are_foreign_is_named(foreign, named):
    """However a list was joined; none of it if the weaker part gains, too."""
    rows = torch.arange(0, 800, 3)
    is_foreign = torch.tensor([foreign(int(row)) for row in rows])
    scatter = noise(len(rows), seed=1).double()
    signal = torch.full((len(rows),), 9.0).double()
    evidence = evidence_of(rows, signal, torch.where(is_foreign, 0.0, 10.0) + 3 * scatter)
    (doubt,) = pose_cautions(evidence, ListOf800())
    if isinstance(named, tuple):
        assert rows_told(doubt) == pytest.approx(named, abs=12)
    else:
        assert doubt.startswith(f"The orientations {named} list.star do not seem to belong to their images")
    weak = evidence_of(rows, signal, torch.where(is_foreign, 4.0, 10.0) + 3 * scatter)
    assert pose_cautions(weak, ListOf800()) == []


@pytest.mark.parametrize("factor", SHIFT_FACTORS)
def test_the_part_whose_origins_are_wrong_is_named(factor):
    """Where its origins gain by a factor; not where they are too small to tell, or most parts are alike."""
    rows = torch.arange(0, 800, 2)
    is_wrong, scatter = rows < 400, 3 * noise(len(rows), 1, seed=1).double()
    shift_gain = torch.full((len(rows), len(SHIFT_FACTORS)), 4.0).double() + scatter
    shift_gain[:, SHIFT_FACTORS.index(factor)] -= 8.0 * is_wrong
    gains = torch.full((2, len(rows)), 10.0).double()
    evidence = evidence_of(rows, *gains, shift_gain=shift_gain)
    moved = replace(ListOf800(), pose=Pose(torch.eye(3).expand(800, 3, 3), torch.full((800, 2), 5.0)))
    (doubt,) = pose_cautions(evidence, moved)
    assert rows_told(doubt) == pytest.approx((1, 400), abs=12)
    assert f"in list.star agree better with {factor:g} times their" in doubt
    assert pose_cautions(evidence, ListOf800()) == []
    shift_gain[:, SHIFT_FACTORS.index(factor)] = -4.0
    (doubt,) = pose_cautions(evidence, moved)
    assert doubt.startswith(f"The images of list.star agree better with {factor:g} times their")


def test_the_reading_that_explains_most_is_named():
    """And those that may explain as much; others that gain, too, are not."""
    rows, gains, scatter = torch.arange(800), torch.full((2, 800), 10.0).double(), noise(800, 1, seed=1).double()
    pixels = torch.full((800, len(PIXEL_FACTORS)), -3.0).double()
    pixels[:, PIXEL_FACTORS.index(1.25)] = -5.0
    flipped = torch.tensor([1.0, -3.0, 1.0, 1.0, 1.0, 1.0, 1.0]).double() + scatter
    (doubt,) = pose_cautions(evidence_of(rows, *gains, pixel_gain=pixels, ctf_gain=flipped), ListOf800())
    assert doubt == (
        "The images of list.star agree better with a pixel size of 2.5 than with 2 Angstrom (log-likelihood gain 5.00"
        " +- 0.00 an image): check it (rlnImagePixelSize), and the units of defocus and origins"
    )
    for of_headers, is_said in ((2.45, True), (2.0, False)):
        told = replace(ListOf800(), index=replace(ListOf800.index, of_headers=of_headers))
        (doubt,) = pose_cautions(evidence_of(rows, *gains, pixel_gain=pixels), told)
        assert ("size of 2.5, that of the headers, than with 2 Angstrom (log-" in doubt) == is_said
    (doubt,) = pose_cautions(evidence_of(rows, *gains, place_gain=-6.0 + scatter[:, 0], pixel_gain=pixels), ListOf800())
    assert doubt.startswith("The images of list.star agree better with other places, 3.0 Angstrom from their origins")
    assert doubt.endswith("refines inaccurate ones, unless all that is left in the images is a part that moves")
    assert "pixel" not in doubt
    around = 3 * (scatter - scatter.mean(dim=0))[:, 0]
    as_good = evidence_of(rows, *gains, place_gain=-5.1 + around, pixel_gain=pixels)
    (doubt,) = pose_cautions(as_good, ListOf800())
    assert "other places" in doubt and "; or else better with a pixel size of 2.5" in doubt


def test_what_other_origins_gain_is_that_of_all_images():
    """Of a part, the share of it; nothing where another reading explains more."""
    rows, gains = torch.arange(800), torch.full((2, 800), 10.0).double()
    shifts = torch.ones(800, len(SHIFT_FACTORS)).double()
    shifts[rows < 400, 0] = -6.0
    moved = replace(ListOf800(), pose=Pose(ListOf800.pose.rotation, torch.full((800, 2), 5.0)))
    foreign = torch.where(rows < 400, 0.0, 10.0).double() + 0.1 * noise(800, seed=1).double()
    for found, expected in (
        (evidence_of(rows, *gains, shift_gain=shifts), 3.0),
        (evidence_of(rows, *gains, shift_gain=shifts, place_gain=-9.0 * torch.ones(800).double()), 0.0),
        (evidence_of(rows, gains[0], foreign, shift_gain=shifts), 0.0),  # orientations of other images are told
        (evidence_of(rows, *gains), 0.0),
    ):
        assert gain_of_other_origins(pose_cautions(found, moved), found, moved) == expected
    scattered = evidence_of(rows, *gains, place_gain=-9.0 * torch.ones(800).double())
    told = pose_cautions(scattered, moved)
    assert gain_of_other_origins(told, scattered, moved, has_scatter=True) == 9.0
    assert gain_of_other_origins([], scattered, moved, has_scatter=True) == 0.0  # as of a part that moves


def test_images_answer_what_headers_doubt(hinge, tmp_path):
    """What is recorded is what they tell, and not before that headers have another pixel size."""
    listed, small = with_changed_rows(hinge.particles, tmp_path / "small.star"), 0.8 * PIXEL_SIZE
    star = StarFile.read(listed)
    star.replace(star.optics, star.optics.with_columns({"rlnImagePixelSize": np.full(1, small)})).write(listed)
    (known,) = ParticleStack.from_star(listed).cautions
    assert known.startswith(f"The pixel size is {small:g} Angstrom in {listed}, but {PIXEL_SIZE:g} in the header")
    _, (doubt,), _ = settled(listed, tmp_path)
    assert f"a pixel size of {PIXEL_SIZE:.3g}, that of the headers, than with {small:.3g} Angstrom" in doubt


def test_frames_are_named_where_no_other_reading_explains_more():
    """Wrong origins look like as many frames; and other places like a frame that moves."""
    frames = ["The poses of 9 images are in another frame"]
    origins = ["The images agree better with 2 times their origins"]
    places = ["The images agree better with other places, unless all that is left in the images is a part that moves"]
    assert with_frames([], frames) == with_frames(places, frames) == frames
    assert with_frames(origins, frames) == with_frames(origins, []) == origins
    assert with_frames(places, []) == places and with_frames([], []) == []


@pytest.mark.parametrize(("choice", "found"), [("yes", "bright"), ("no", None)])
def test_a_sign_that_is_asked_for_and_seems_wrong_is_told(choice, found, hinge, tmp_path):
    decided, cautions, _ = settled(hinge.particles, tmp_path, invert_contrast=choice)
    assert decided.sign == (-1 if choice == "yes" else 1)
    assert cautions == ([] if found is None else [
        f"The molecule seems to be {found} in the images, unlike --invert-contrast {choice} says: leave that out"
    ])  # fmt: skip


@pytest.mark.parametrize(("share", "is_told"), [(0.2, False), (0.6, True)])
def test_junk_says_nothing_of_the_list(share, is_told):
    """Images that do not show the molecule, all over the list, may gain much where the others lose a little."""
    rows, gains = torch.arange(800), torch.full((2, 800), 10.0).double()
    gain = torch.where(torch.rand(800, generator=torch.Generator().manual_seed(1)) < share, 30.0, -1.0)
    doubts = pose_cautions(evidence_of(rows, *gains, place_gain=-gain.double()), ListOf800())
    assert bool(doubts) == is_told


def test_rows_are_those_of_the_list_where_symmetry_has_made_several_of_each():
    rows = torch.arange(800)
    expanded = replace(ListOf800(), list_row=np.repeat(np.arange(400), 2))
    gain = torch.where(rows < 400, 0.0, 10.0) + 3 * noise(800, seed=1).double()
    (doubt,) = pose_cautions(evidence_of(rows, torch.full((800,), 9.0).double(), gain), expanded)
    assert doubt.startswith("The orientations of about rows 1 to ") and rows_told(doubt) == pytest.approx(
        (1, 200), abs=6
    )


def test_a_part_is_not_named_alone_where_the_others_are_hardly_better():
    """Both halves gain, the first by seven standard errors, the second by less than four."""
    rows, gains = torch.arange(800), torch.full((2, 800), 10.0).double()
    scatter = 0.58 * noise(400, seed=1).double()
    loss = (scatter - scatter.mean()).repeat(2) - torch.where(rows < 400, 0.21, 0.11)
    doubts = pose_cautions(evidence_of(rows, *gains, pixel_gain=torch.stack([loss] * 6, dim=1)), ListOf800())
    assert len(doubts) == 1 and doubts[0].startswith("The images of list.star agree better with a pixel size of 1 ")
    loss[400:] = 1.0
    (doubt,) = pose_cautions(evidence_of(rows, *gains, pixel_gain=torch.stack([loss] * 6, dim=1)), ListOf800())
    assert rows_told(doubt) == pytest.approx((1, 400), abs=12)


def test_noise_is_no_proof_that_poses_are_foreign():
    """Where images hardly show the molecule, they cannot show how it is turned; what is said is less then."""
    rows = torch.arange(800)
    scatter = noise(800, seed=1).double()
    scatter -= scatter.mean()
    for signal, is_foreign, said in ((9.0, True, "do not seem to belong"), (0.4, False, "too few or too noisy")):
        evidence = evidence_of(rows, torch.full((800,), signal).double(), 0.05 + scatter)
        (doubt,) = pose_cautions(evidence, ListOf800())
        assert are_foreign(evidence) is is_foreign and said in doubt
    for gain, doubts in ((3.0, 1), (7.0, 0)):  # even of balls, right ones gain 0.7 of the signal or more
        seen = evidence_of(rows, torch.full((800,), 9.0).double(), gain + scatter)
        found = pose_cautions(seen, ListOf800())
        assert not are_foreign(seen) and len(found) == doubts
        assert all("than right ones do, unless these show very many different states (log" in doubt for doubt in found)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [("rlnPhaseShift", 90.0, "those of another phase shift"), ("rlnCtfDataArePhaseFlipped", 1, "the opposite of what")],
)
def test_transfer_functions_that_are_not_those_of_the_images_are_told(column, value, text, hinge, tmp_path):
    particles = with_changed_rows(hinge.particles, tmp_path / "x.star", **{column: np.full(PARTICLES, value)})
    (doubt,) = [doubt for doubt in settled(particles, tmp_path)[1] if "transfer functions" in doubt]
    assert doubt.startswith(f"The transfer functions in {particles} are not those of its images") and text in doubt


def test_even_aberrations_that_are_not_those_of_the_images_are_told(hinge, tmp_path):
    """Alike in all directions, they make a mean that agrees with them, of the other sign even."""
    changed = {"rlnEvenZernike": np.full(PARTICLES, "[0.3]")}
    particles = with_changed_rows(hinge.particles, tmp_path / "x.star", **changed)
    decided, (doubt, *_), _ = settled(particles, tmp_path)
    assert doubt.startswith(f"The images of {particles} agree better without even aberrations (log-likelihood gain")
    assert decided.sign == 1


@pytest.fixture(scope="module")
def transfer_doubts(simulate, tmp_path_factory):
    """Function from a change of prepared images to what is said of their transfer functions, and those images."""
    data = simulate("--phantom", "static", "--particles", 600, "--box", 24, "--pixel-size", 8, "--snr", 0.5)
    params = FitParams(particles=str(data.particles), output=str(tmp_path_factory.mktemp("run") / "run"), rank=1)
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            known = read_images(job)

    def doubts(source: PreparedParticles) -> list[str]:
        mean = estimate_mean(*half_set_equations(source, job.inputs.halves, job.projector_options))
        return pose_cautions(evidence_of_poses(job, source, mean), job.inputs.stack)

    return doubts, known


def _shuffled(source, is_wrong):
    rows, wrong = torch.arange(len(source)), torch.nonzero(is_wrong).flatten()
    rows[wrong] = wrong[torch.randperm(len(wrong), generator=torch.Generator().manual_seed(1))]
    return source.with_ctf(source.ctf[rows])


def _of_200_kv(source, is_wrong):
    voltage = torch.where(is_wrong, 200.0, source.ctf.voltage)
    return source.with_ctf(replace(source.ctf, voltage=voltage))


def _with_even_aberration(source, is_wrong):
    even = torch.zeros(len(source), 4)
    even[is_wrong, 1] = 300.0  # of (x y), 1 radian at the edge
    return source.with_ctf(replace(source.ctf, even_zernike=even))


def _corrected_for_odd_aberration(source, is_wrong):
    odd = torch.tensor([[0.0, 0.0, 4000.0, 0.0, 0.0, 0.0]]).double()  # three-fold, 1 radian at the edge
    factors = odd_phase_factors(odd, source.disk, source.box_size * source.pixel_size).conj().to(torch.complex64)
    return replace(
        source,
        coefficients=source.coefficients * torch.where(is_wrong[:, None], factors, 1.0),
        aberrations=Aberrations(torch.eye(2).double()[None], odd),
    )


def _multiplied(source, is_wrong):
    ctf = ctf_values(source.ctf, source.disk, source.pixel_size)
    return replace(source, coefficients=source.coefficients * torch.where(is_wrong[:, None], 1.5 * ctf, 1.0))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_shuffled, "as well with those of other images"),
        (_of_200_kv, "better with those of another voltage, 200 or 300 kV: check rlnVoltage"),
        (_with_even_aberration, "better without even aberrations: check rlnEvenZernike"),
        (_corrected_for_odd_aberration, "better without odd aberrations: check rlnBeamTiltX and rlnOddZernike"),
        (_multiplied, "better with their squares, as of images that were multiplied by them (rlnCtfDataAreCtfPrem"),
    ],
)
def test_other_transfer_functions_are_told_of_all_images_and_of_a_part(change, text, transfer_doubts):
    doubts, known = transfer_doubts
    row = torch.arange(len(known))
    assert doubts(known) == []
    (doubt,) = doubts(change(known, row >= 0))
    assert doubt.startswith("The transfer functions in /") and text in doubt
    if change is _shuffled:  # whose images still have transfer functions of this kind: half of so few do not tell
        return
    (doubt,) = doubts(change(known, row >= len(known) // 2))
    assert doubt.startswith("The transfer functions of about rows ") and text in doubt
    assert rows_told(doubt) == pytest.approx((301, 600), abs=30)


def _out_of_focus(source, is_wrong):
    change = 4000.0 * is_wrong
    ctf = source.ctf
    return source.with_ctf(replace(ctf, defocus_u=ctf.defocus_u + change, defocus_v=ctf.defocus_v + change))


def _uncentred(source, is_wrong):
    shift = torch.where(is_wrong[:, None], 0.0, source.pose.shift)
    return source.with_pose(Pose(source.pose.rotation, shift))


def _inaccurate(source, is_wrong):
    turn = rotvec_to_rotation(0.14 * is_wrong[:, None] * noise(len(source), 3, seed=1))
    return source.with_pose(Pose(source.pose.rotation @ turn, source.pose.shift))


def _of_smaller_pixels(source, is_wrong):
    factor = torch.where(is_wrong, 1.25, 1.0)
    ctf = replace(source.ctf, cs=source.ctf.cs * factor**4, **{
        name: getattr(source.ctf, name) * factor**2 for name in ("defocus_u", "defocus_v")})  # fmt: skip
    return source.with_ctf(ctf).with_pose(Pose(source.pose.rotation, source.pose.shift * factor[:, None]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_uncentred, "better with other places, "),
        (_inaccurate, "better with orientations turned by 8 degrees"),
        (_of_smaller_pixels, "better with a pixel size of 10 than with 8 Angstrom"),
        (_out_of_focus, "better with a defocus that is about 4000 Angstrom smaller"),
    ],
)
def test_the_cause_is_named_that_is_one(change, text, transfer_doubts):
    """Origins that were not copied, orientations wrong by 8 degrees, other pixels."""
    doubts, known = transfer_doubts
    row = torch.arange(len(known))
    (doubt,) = doubts(change(known, row >= 0))
    assert re.match(f"The images of /[^ ]* agree {text}", doubt) and "; or else" not in doubt
    (doubt,) = doubts(change(known, row >= len(known) // 2))
    assert re.match(f"The images of about rows [0-9]* to [0-9]* in /[^ ]* agree {text}", doubt)
    assert rows_told(doubt) == pytest.approx((301, 600), abs=30)


@pytest.mark.parametrize("turn", [lambda r, t, p: (-r, t, p), lambda r, t, p: (r, t + 180, p)])
def test_mirrored_orientations_are_named(turn, hinge, tmp_path):
    """Their mean is that of a molecule, too; only another one explains the images better."""
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    angles = StarFile.read(hinge.particles).particles.numbers(*names)
    turned = turn(*(angles[name] for name in names))
    particles = with_changed_rows(hinge.particles, tmp_path / "x.star", **dict(zip(names, turned, strict=True)))
    (doubt,) = settled(particles, tmp_path)[1]
    assert "agree much better with the other sign of rlnAngleRot (log" in doubt


@pytest.mark.parametrize("turn", [lambda r, t, p: (r, t, -p), lambda r, t, p: (-r, -t, -p), lambda r, t, p: (p, t, r)])
def test_angles_of_another_convention_are_told(turn, hinge, tmp_path):
    """They are consistent, so that the images prefer them a little, and components look real."""
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    angles = StarFile.read(hinge.particles).particles.numbers(*names)
    turned = turn(*(angles[name] for name in names))
    particles = with_changed_rows(hinge.particles, tmp_path / "x.star", **dict(zip(names, turned, strict=True)))
    (doubt,) = settled(particles, tmp_path)[1]
    assert doubt.startswith(f"The orientations in {particles} ") and doubt.endswith("of RELION's convention")


@pytest.mark.parametrize("in_column", ["rlnOriginXAngst", "rlnOriginX"])
def test_shifts_in_another_unit_are_told(in_column, hinge, tmp_path):
    """Both origins twice as large; Angstrom or px, whichever the list has."""
    star = StarFile.read(hinge.particles)
    origins = star.particles.numbers("rlnOriginXAngst", "rlnOriginYAngst")
    factor = 2.0 if in_column == "rlnOriginXAngst" else 2.0 / PIXEL_SIZE
    changed = {name: factor * values for name, values in origins.items()}
    if in_column == "rlnOriginX":
        changed = {"rlnOriginX": changed["rlnOriginXAngst"], "rlnOriginY": changed["rlnOriginYAngst"],
                   "rlnOriginXAngst": 2 * origins["rlnOriginXAngst"], "rlnOriginYAngst": 2 * origins["rlnOriginYAngst"]}
    particles = with_changed_rows(hinge.particles, tmp_path / "particles.star", **changed)
    assert any("agree better with 0.5 times their origins" in doubt for doubt in settled(particles, tmp_path)[1])


def test_a_pixel_that_is_the_same_in_all_images_is_told(hinge, tmp_path):
    shutil.copytree(hinge.path, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        stack.data[:, 14, 9] += 20 * stack.data.std()
    (doubt,) = settled(tmp_path / "data" / "particles.star", tmp_path)[1]
    assert doubt.startswith("1 pixel stands out at the same place") and "(column, row: 10, 15)" in doubt


def test_masks_beside_the_molecule_are_refused_or_told(hinge, tmp_path):
    mask = read_volume(hinge.mask).data
    corner = torch.zeros_like(mask)
    corner[1:5, 1:5, 1:5] = 1
    write_volume(tmp_path / "corner.mrc", Volume(corner, PIXEL_SIZE))
    with pytest.raises(UserError, match=r"corner.mrc holds 0 % of the density of the mean: is it of another molecule"):
        settled(hinge.particles, tmp_path, mask=str(tmp_path / "corner.mrc"))
    density = read_volume(hinge.path / "truth" / "mean.mrc").data
    order = density.sum(dim=(0, 1)).cumsum(0) / density.sum()
    part = mask * (torch.arange(BOX) <= int((order < 0.3).sum()))
    write_volume(tmp_path / "part.mrc", Volume(part, PIXEL_SIZE))
    (tmp_path / "part").mkdir()
    _, (doubt,), around_mean = settled(hinge.particles, tmp_path / "part", mask=str(tmp_path / "part.mrc"))
    assert "part.mrc holds" in doubt and "motions outside of it are not seen" in doubt
    assert bool((around_mean >= part).all()) and share_of_density(density, around_mean, PIXEL_SIZE) > 0.97
    (tmp_path / "focus").mkdir()
    write_volume(tmp_path / "all.mrc", Volume(torch.ones_like(mask), PIXEL_SIZE))
    masks = {"mask": str(tmp_path / "all.mrc"), "focus_mask": str(tmp_path / "corner.mrc")}
    (doubt,) = settled(hinge.particles, tmp_path / "focus", **masks)[1]
    assert "focus mask" in doubt and "corner.mrc holds 0.0 % of the density" in doubt


@pytest.fixture(scope="module")
def masks_judged(hinge, tmp_path_factory):
    """Function from a mask to what is said of it beside the mean of the hinge."""
    params = FitParams(particles=str(hinge.particles), output=str(tmp_path_factory.mktemp("run") / "run"), rank=1)
    run = RunDir(params.output)
    with prepared(run, params, resume=False):
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            source = read_images(job)
    mean = estimate_mean(*half_set_equations(source, job.inputs.halves, job.projector_options))

    def judge(mask: torch.Tensor, mean: MeanEstimate = mean) -> list[str]:
        return mask_cautions(replace(job, inputs=replace(job.inputs, mask=mask)), mean)

    return judge, mean


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("pixels", [-5, 5])
def test_a_moved_mask_that_holds_most_of_the_density_is_told(axis, pixels, masks_judged):
    """By 40 Angstrom; their centres are not always as far apart, as a part leaves the box."""
    judge, mean = masks_judged
    (doubt,) = judge(automatic_mask(mean.mean, PIXEL_SIZE).roll(pixels, axis))
    holds, beside, apart = map(int, re.findall(r"(\d+) (?:%|Angstrom)", doubt))
    assert 40 <= holds <= 85 and 5 < beside < 100 - holds and apart == pytest.approx(40, abs=10)
    assert "motions outside of it are not seen" in doubt


@pytest.mark.parametrize("turn", [lambda m: m.flip(0).roll(1, 0), lambda m: m.flip(2).roll(1, 2), lambda m: m.mT])
def test_a_mirrored_mask_is_told(turn, masks_judged):
    judge, mean = masks_judged
    (doubt,) = judge(turn(automatic_mask(mean.mean, PIXEL_SIZE)))
    assert "if it is mirrored or its axes are exchanged" in doubt or "are far outside it" in doubt


def test_masks_around_the_molecule_are_not_doubted(masks_judged, hinge):
    """Tight, soft, wide and round ones."""
    judge, mean = masks_judged
    made, truth = automatic_mask(mean.mean, PIXEL_SIZE), read_volume(hinge.mask).data
    smooth = low_pass(mean.mean, 8)
    level = 0.2 * smooth.max()
    tight = (smooth > level).float()
    spheres = [sphere_mask(BOX, radius * BOX) for radius in (0.4, 0.5)]
    soft = [soft_edge(grown(mask, width) > 0, 3) for mask in (made, tight) for width in (0, 2, 5)]
    assert [judge(mask) for mask in (made, truth, tight, *spheres, *soft)] == [[]] * 11


def test_density_beside_the_mask_counts_if_both_half_maps_have_it(masks_judged):
    judge, mean = masks_judged
    moved = automatic_mask(mean.mean, PIXEL_SIZE).roll(4, 0)
    noisy = replace(mean, half2=torch.where(moved > 0.5, mean.half2, -mean.half2))
    assert judge(moved) and not judge(moved, noisy)


def test_half_sets_of_the_other_sign_are_refused(hinge, tmp_path):
    star = StarFile.read(hinge.particles)
    with StackWriter(tmp_path / "particles.mrcs", PIXEL_SIZE) as stack:
        images = mrcfile.read(hinge.particles.parent / "particles.mrcs")
        stack.append(np.concatenate([images[: PARTICLES // 2], -images[PARTICLES // 2 :]]))
    subset = np.repeat([1, 2], PARTICLES // 2)
    star.replace(star.particles, star.particles.with_columns({"rlnRandomSubset": subset})).write(tmp_path / "x.star")
    with pytest.raises(UserError, match="the opposite of each other"):
        settled(tmp_path / "x.star", tmp_path)


def test_a_mean_of_noise_makes_neither_mask_nor_sign(hinge, tmp_path):
    """Only a ball that leaves the edges out, and images as they are."""
    generator = np.random.default_rng(0)
    with StackWriter(tmp_path / "particles.mrcs", PIXEL_SIZE) as stack:
        stack.append(generator.normal(size=(PARTICLES, BOX, BOX)).astype(np.float32))
    (tmp_path / "particles.star").write_bytes(hinge.particles.read_bytes())
    decided, (doubt,), mask = settled(tmp_path / "particles.star", tmp_path)
    assert "agree no better than noise" in doubt and f"a ball of {BALL * BOX * PIXEL_SIZE:.0f} Angstrom" in doubt
    assert (decided.sign, decided.pose_gain) == (1.0, None)
    volume = 4 / 3 * np.pi * (BALL * BOX) ** 3
    assert int((mask == 1).sum()) == pytest.approx(volume, rel=0.05) and float(mask[BOX // 2, BOX // 2, 0]) == 0
