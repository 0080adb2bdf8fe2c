"""The one place where a backend is chosen."""

from __future__ import annotations

import logging

import pytest
import torch

from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import create_projector
from solvar_engine.projectors.numba_cpu import NumbaProjector
from solvar_engine.projectors.torch_ref import TorchProjector

DISK = HalfDisk.create(8)


def test_the_fast_kernels_serve_the_cpu() -> None:
    assert isinstance(create_projector(8, DISK), NumbaProjector)


@pytest.mark.parametrize(("backend", "kind"), [("numba_cpu", NumbaProjector), ("torch_ref", TorchProjector)])
def test_a_named_backend_is_what_one_gets(backend: str, kind: type) -> None:
    assert isinstance(create_projector(8, DISK, backend=backend), kind)


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        create_projector(8, DISK, interpolation="nearest", oversampling=3)
    assert "numba_cpu on cpu, nearest, oversampling 3" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backend": "magic"}, "projector backend is 'magic', expected auto, numba_cpu or torch_ref"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of trilinear, nearest"),
        ({"backend": "numba_cpu", "device": "cuda"}, "numba_cpu runs on the CPU only, not on cuda"),
    ],
)
def test_what_cannot_be_had_is_said(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        create_projector(8, DISK, **options)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_reference_runs_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    volumes, rotation = torch.randn(2, 8, 8, 8, generator=generator), torch.eye(3)[None]
    on_cpu, on_gpu = create_projector(8, DISK), create_projector(8, DISK, device="cuda")
    expected = on_cpu.project(on_cpu.to_grid(volumes), rotation)
    found = on_gpu.project(on_gpu.to_grid(volumes), rotation.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
