"""What ends at a limit, or cannot be, is said; what is ordinary is not."""

from __future__ import annotations

from types import SimpleNamespace as Some

import pytest
import torch

from solvar_engine.estimation.poses.uncertainty import PoseSpread
from solvar_engine.jobs.decisions import with_cautions
from solvar_engine.jobs.fit import cautions
from solvar_engine.jobs.fit.cautions import cautions_of

COUNT = 50
PLACE = torch.stack(torch.meshgrid(*[torch.arange(8.0) - 4] * 3, indexing="ij"))
MEAN = torch.exp(-(PLACE - torch.tensor([1.0, -0.5, 0.3])[:, None, None, None]).square().sum(dim=0))
Z = 0.1 * torch.where(torch.arange(COUNT) % 2 == 0, 1.0, -1.0)[:, None]
ONES, OF_SECOND = torch.ones(2, 9), torch.tensor([[1.3], [0.25]])


def said(
    contrast=None, *, eigenvalues=(4.0, 1.0), rank=2, input_box=16, noise_outside=None, inner_noise=None, has_mean=True,
    image_scale=None, left_frames=(), has_scatter=False, has_origins=True, **halves,
):  # fmt: skip
    """Cautions of a fit that is ordinary in all that is not given."""
    ordinary = {
        "noise": torch.linspace(2.0, 1.0, 9).expand(2, -1),
        "known": None,
        "variance": 0.04,
        "fsc": torch.tensor([1.0, 1.0, 1.0, 0.8, 0.5, 0.3, 0.1, 0.0]),
        "spread": None,
        "outliers": 1,
        **halves,
    }
    outlier = (torch.arange(COUNT) >= 7) & (torch.arange(COUNT) < 7 + ordinary["outliers"])
    fit = Some(
        problem=Some(contrast_variance=ordinary["variance"], mean=torch.full((8, 8, 8), 0.5)),
        source=Some(contrast=ordinary["known"], noise_variance=ordinary["noise"]),
        mean=Some(fsc=ordinary["fsc"], mean=MEAN),
        outlier=outlier,
        pose_spread=ordinary["spread"],
    )
    stack = Some(group_names=("first", "second"))
    inputs = Some(stack=stack, halves=(torch.arange(3, COUNT, 2), torch.arange(4, COUNT, 2)))  # three were left out
    frames = {"left_frames": left_frames, "has_scatter": has_scatter}
    job = Some(asked_rank=rank, tried_rank=2, inputs=inputs, pixel_size=3.0, **frames)
    noise = ordinary["noise"] if noise_outside is None else noise_outside
    contrast = torch.ones(COUNT) if contrast is None else contrast
    images = Some(
        box_size=16, input_box=input_box, pixel_size=3.0, noise_variance=noise, inner_noise=inner_noise,
        image_scale=torch.ones(COUNT) if image_scale is None else image_scale,
    )  # fmt: skip
    components = Some(eigenvalues=torch.tensor(eigenvalues), eigenvolumes=MEAN.flip(1)[None] / MEAN.norm())
    return cautions_of(job, images, fit, components, Z, contrast, has_mean, has_origins)


def contrasts(*values):
    """Ones, and these; the eighth image is an outlier."""
    contrast = torch.ones(COUNT)
    contrast[: len(values)] = torch.tensor(values)
    return contrast


def test_what_follows_from_what_is_said_is_not():
    """Of a mean that is not resolved, of images that were left out, and of backgrounds that were replaced."""
    unresolved = {"variance": 1.0, "fsc": torch.zeros(8), "eigenvalues": (200.0, 56.0)}
    assert len(said(**unresolved)) == 3 and said(**unresolved, has_mean=False) == []
    double = {"noise": 4 * ONES, "noise_outside": ONES}
    assert len(said(**double)) == 1 and said(**double, inner_noise=torch.tensor([1.0, 2.0])) == []


def test_a_motion_of_the_whole_is_said_once(monkeypatch):
    """The ends of the component that it makes are one molecule in two frames, too."""
    monkeypatch.setattr(cautions, "frame_between_ends", lambda *asked: pytest.fail("asked again"))
    assert said(left_frames=("9 images show the molecule turned",)) == []
    assert said(has_scatter=True) == said(has_origins=False) == []  # of images that wrong origins move


def test_an_ordinary_fit_needs_no_word():
    assert said() == []
    assert said(contrasts(*[1.0] * 7, -2.0)) == []  # an outlier's contrast means nothing
    assert said(spread=PoseSpread(0.052, 1.0)) == said(outliers=7) == []
    assert said(fsc=torch.full((8,), 0.9)) == []  # as far as the images go
    assert said(contrasts(5.0), image_scale=1 / contrasts(5.0)) == []  # five times the noise, too


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"outliers": 8}, "8 of 50 images are outliers (solvarOutlier)"),
        ({"variance": 1.0}, "the spread of the contrasts is at its limit (1.00)"),
        ({"variance": 0.6}, "impossibly large (0.77)"),
        ({"contrast": contrasts(-1.04, -0.2)}, "2 images that are no outliers have a negative contrast"),
        ({"contrast": contrasts(3.5)}, "1 image that is no outlier has a contrast above 3"),
        ({"known": contrasts(0.1, 0.1, 0.3)}, "contrast of 2 images was refined down to its limit, 0.1"),
        ({"fsc": torch.full((8,), 0.9), "input_box": 32}, "working box (6.0 Angstrom): give a larger --box"),
        ({"fsc": torch.tensor([1.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])}, "agree on the mean in no shell"),
        ({"eigenvalues": (200.0, 56.0)}, "2 times the power of the mean"),
        ({"rank": None}, "all 2 components that were tried are real"),
        ({"noise": torch.tensor([[1.0] * 9, [1.0] * 8 + [1e-4]])}, "optics group second hold hardly any noise"),
        ({"noise": ONES, "noise_outside": ONES * OF_SECOND}, "group second is 2 times as strong in the whole image"),
        ({"noise": ONES, "noise_outside": 4 * ONES}, "group first and 1 others is 0.5 times as strong"),
        ({"spread": PoseSpread(0.2, 1.0)}, "wrong by about 11.5 degrees"),
        ({"spread": PoseSpread(0.1, 6.0)}, "6.0 px per axis"),
    ],
)  # fmt: skip
def test_what_is_at_a_limit_or_cannot_be_is_said_once(changes, text):
    (sentence,) = said(**changes)
    assert text in sentence


def test_fewer_components_than_were_tried_need_no_word():
    assert said(rank=None, eigenvalues=(4.0,)) == []


def test_cautions_come_before_the_summary_as_sentences():
    assert with_cautions("done", []) == "done"
    assert with_cautions("done", ["one", "two"]) == "Mind: one; two. done"
    assert with_cautions("done", ["is it?"]) == "Mind: is it? done"
