"""The one place where a backend is chosen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from solvar_engine.imaging.background import bytes_per_image
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.nufft import NufftProjector
from solvar_engine.projectors.numba_cpu import NumbaProjector
from solvar_engine.projectors.options import SliceOptions, can_be_imported
from solvar_engine.projectors.torch_ref import TorchProjector
from solvar_engine.projectors.triton_gpu import TritonProjector

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


@pytest.fixture
def probing_anew() -> Iterator[None]:
    can_be_imported.cache_clear()
    yield
    can_be_imported.cache_clear()


def test_triton_and_cufinufft_serve_gpus(probing_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cufinufft", ModuleType("cufinufft"))
    for interpolation, backend in (("trilinear", "triton_gpu"), ("nearest", "triton_gpu"), ("nufft", "finufft_gpu")):
        assert SliceOptions(interpolation, device="cuda:1").chosen_backend == backend
    assert SliceOptions(device="mps").chosen_backend == "torch_ref"


def test_plain_torch_stands_in_where_triton_is_missing_and_says_so_once(
    probing_anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert [SliceOptions(device="cuda").chosen_backend for _ in range(3)] == ["torch_ref"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage().startswith("the library triton cannot be imported")
    with pytest.raises(ValueError, match="triton_gpu needs the library triton, which cannot be imported"):
        SliceOptions(device="cuda", backend="triton_gpu")


def test_tritons_kernels_run_on_a_cpu_in_its_interpreter_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    options = SliceOptions(backend="triton_gpu")
    assert isinstance(create_projector(8, DISK, options), TritonProjector)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="triton_gpu runs on a GPU only, not on cpu"):
        SliceOptions(backend="triton_gpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backend": "magic"}, "backend is 'magic', expected auto or numba_cpu or triton_gpu or torch_ref for tri"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of trilinear, nearest, nufft"),
        ({"backend": "numba_cpu", "device": "cuda"}, "numba_cpu runs on the CPU only, not on cuda"),
        ({"interpolation": "nufft", "device": "cuda"}, "finufft_cpu runs on the CPU only, not on cuda"),
        ({"interpolation": "nufft", "backend": "numba_cpu"}, "expected auto or finufft_cpu or finufft_gpu for nufft"),
        ({"interpolation": "nearest", "backend": "finufft_cpu"}, "'finufft_cpu', expected auto or numba_cpu"),
        ({"interpolation": "nufft", "backend": "finufft_gpu"}, "finufft_gpu runs on a GPU only, not on cpu"),
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
@pytest.mark.parametrize("backend", ["torch_ref", "triton_gpu"])
def test_a_gpu_gives_what_the_cpu_gives(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    volumes, rotation = torch.randn(2, 8, 8, 8, generator=generator), torch.eye(3)[None]
    on_cpu = create_projector(8, DISK, SliceOptions())
    on_gpu = create_projector(8, DISK, SliceOptions(device="cuda", backend=backend))
    expected = on_cpu.project(on_cpu.to_grid(volumes), rotation)
    found = on_gpu.project(on_gpu.to_grid(volumes), rotation.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
