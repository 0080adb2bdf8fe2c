"""The one place where a backend is chosen."""

from __future__ import annotations

import logging

import pytest
import torch

from solvar_engine.imaging.background import bytes_per_image
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.nufft import NufftProjector
from solvar_engine.projectors.numba_cpu import NumbaProjector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.projectors.torch_ref import TorchProjector

DISK = HalfDisk.create(8)


def test_the_fast_kernels_serve_the_cpu() -> None:
    assert isinstance(create_projector(8, DISK, SliceOptions()), NumbaProjector)


def test_transforms_without_a_grid_serve_nufft() -> None:
    assert isinstance(create_projector(8, DISK, SliceOptions("nufft")), NufftProjector)


@pytest.mark.parametrize(
    ("interpolation", "backend", "kind"),
    [
        ("trilinear", "numba_cpu", NumbaProjector),
        ("nearest", "torch_ref", TorchProjector),
        ("nufft", "finufft_cpu", NufftProjector),
    ],
)
def test_a_named_backend_is_what_one_gets(interpolation: str, backend: str, kind: type) -> None:
    assert isinstance(create_projector(8, DISK, SliceOptions(interpolation, backend=backend)), kind)


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        create_projector(8, DISK, SliceOptions("nearest", oversampling=3))
        create_projector(8, DISK, SliceOptions("nufft"))
    assert "numba_cpu on cpu, nearest, oversampling 3" in caplog.text
    assert "finufft_cpu on cpu, nufft" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backend": "magic"}, "projector backend is 'magic', expected auto or numba_cpu or torch_ref for trilinear"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of trilinear, nearest, nufft"),
        ({"backend": "numba_cpu", "device": "cuda"}, "numba_cpu runs on the CPU only, not on cuda"),
        ({"interpolation": "nufft", "device": "cuda"}, "finufft_cpu runs on the CPU only, not on cuda"),
        ({"interpolation": "nufft", "backend": "numba_cpu"}, "'numba_cpu', expected auto or finufft_cpu for nufft"),
        ({"interpolation": "nearest", "backend": "finufft_cpu"}, "'finufft_cpu', expected auto or numba_cpu"),
        ({"device": "gpu"}, "device is 'gpu', expected one such as cpu or cuda:0"),
        ({"oversampling": 0}, "oversampling is 0, expected an integer of at least 1"),
        ({"oversampling": 1.5}, "oversampling is 1.5, expected an integer"),
        ({"interpolation": "nufft", "oversampling": 3}, "oversampling is 3, but nufft has no grid to oversample"),
    ],
)
def test_what_cannot_be_had_is_said(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SliceOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("interpolation", ["trilinear", "nufft"])
def test_images_of_a_call_stay_within_its_memory(interpolation: str) -> None:
    projector: Projector = create_projector(64, HalfDisk.create(64), SliceOptions(interpolation))
    image_bytes = len(projector.disk) * 12 * 8 + bytes_per_image(projector.disk)
    count = images_per_call(projector, 12)
    assert count * image_bytes <= projector.chunk_bytes < (count + 1) * image_bytes
    assert images_per_call(projector, 10**6) == 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_reference_runs_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    volumes, rotation = torch.randn(2, 8, 8, 8, generator=generator), torch.eye(3)[None]
    on_cpu, on_gpu = (create_projector(8, DISK, SliceOptions(device=name)) for name in ("cpu", "cuda"))
    expected = on_cpu.project(on_cpu.to_grid(volumes), rotation)
    found = on_gpu.project(on_gpu.to_grid(volumes), rotation.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
