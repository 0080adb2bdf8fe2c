"""A list over two thousand stacks of one image each, where a process may open few files."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from tests.jobs.programs import engine_command, engine_environment

STACKS, OPEN_FILES = 2000, 256


@pytest.mark.slow
def test_two_thousand_stacks_with_256_open_files(simulate, tmp_path):
    data = simulate("--phantom", "hinge", "--particles", STACKS, "--box", 16, "--pixel-size", 12, "--snr", 1)
    images = ParticleStack.from_star(data.particles).images(slice(None)).numpy()
    star = StarFile.read(data.particles)
    names = [f"000001@Extract/m{row % 40:02d}/p{row:04d}.mrcs" for row in range(STACKS)]
    for name, image in zip(names, images, strict=True):
        path = tmp_path / name.partition("@")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        with StackWriter(path, 12.0) as writer:
            writer.append(image[None])
    path = tmp_path / "particles.star"
    star.replace(star.particles, star.particles.with_columns({"rlnImageName": names})).write(path)
    results = []
    for particles, limit in ((path, OPEN_FILES), (data.particles, 4096)):
        run = RunDir(tmp_path / f"run_{limit}")
        command = engine_command("fit", particles, "--output", run.path, "--rank", 1)
        limited = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *command]
        done = subprocess.run(limited, env=engine_environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results.append(read_latents(run.latents).z)
    assert results[0].shape == (STACKS, 1)
    np.testing.assert_allclose(*results, atol=1e-4 * np.abs(results[0]).max())
