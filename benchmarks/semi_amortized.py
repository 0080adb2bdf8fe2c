"""Semi-amortized inference of poses beside a fully amortized one, and beside other methods.

    python -m benchmarks.semi_amortized --work DIR [--box 32] [--particles 4000] [--seeds 3] [--after 6] [--device cuda]
        [--parts modes learning methods] [--print]

modes: from random spheres the encoder learns; then each mode goes on from the same encoder and map, two shells farther:
poses go down the loss by themselves, in two ways, or the encoder goes on naming them, as it is or with local steps.
Seconds per epoch and memory are those of table 2 of the paper, at other sizes; on a CPU the memory is not looked at.

learning: what the encoder makes of the images when it learns as published, and without one of our changes each.

methods: maps of low resolution from the same images, poses being the best of a grid under each map, and the structures
that the commands make of them.

The data set is simulated: a static molecule with CTFs, shifts and noise, by default as noisy as images of 64 px with a
signal-to-noise ratio of 0.1 that were binned to 32. Errors of poses are those of all images as they were looked at, in
the frame and the hand that most of them support within 20 degrees; resolutions are where the FSC with the truth falls
below 0.5, and cannot be beyond the band.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.abinitio import align, distances, load, resolution
from benchmarks.common import ROOT, finish, provenance, script_parser, simulated, table, use_threads
from solvar_engine.abinitio.mixture import LowImages, read_low
from solvar_engine.abinitio.online_em import LEVELS, first_mixture, improved
from solvar_engine.abinitio.semi_amortized.auto_decoding import ADAM, DecodingOptions
from solvar_engine.abinitio.semi_amortized.auto_encoding import SIMULATIONS, Epoch
from solvar_engine.abinitio.semi_amortized.encoder import INPUT_SHELL
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.abinitio.semi_amortized.search import (
    PAPER,
    SemiAmortizedOptions,
    decoded,
    encoded,
    find_structure_by_semi_amortized,
    new_training,
)
from solvar_engine.abinitio.semi_amortized.training import EncoderTraining
from solvar_engine.abinitio.sgd.search import (
    SgdOptions,
    best_poses,
    descended,
    find_structure_by_sgd,
    first_shell,
    random_spheres,
)
from solvar_engine.abinitio.structure import AbinitioOptions, Structure, find_structure
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.simulation.particles import SHIFT_STD

FIGURES = ROOT / "benchmarks" / "figures"
_PARTS = ("modes", "learning", "methods")
_INLIER_DEG = 20.0
_DRAWN = 1500  # images
_NO_SYMMETRY = symmetry_operators("C1")
_HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


@dataclass(frozen=True)
class Truth:
    """A data set and what is true of it."""

    source: PreparedParticles
    images: LowImages
    rotation: Tensor
    volume: Tensor
    slices: SliceOptions

    @staticmethod
    def of(folder: Path, device: str) -> Truth:
        """Read a folder of `simulate`."""
        source, rotation, _ = load(folder, device)
        images = read_low(source, torch.arange(len(source)), min(LEVELS[-1].shell, source.disk.shell_max))
        volume = read_volume(folder / "truth" / "mean.mrc").data / source.grey_unit
        return Truth(source, images, rotation, volume, SliceOptions(device=device))

    @property
    def shift_std_px(self) -> float:
        """As it was simulated."""
        return SHIFT_STD * self.source.box_size

    def problem(self, shell: int) -> Problem:
        """Its images up to a shell."""
        return Problem.of(self.images, shell, self.shift_std_px, _NO_SYMMETRY, self.slices)

    def reached(self, volume: Tensor, shell: int, turn: Tensor, is_mirrored: bool) -> float:
        """Resolution of a map of a band, Angstrom."""
        full = change_box(volume.cpu(), len(self.volume), shell)
        return resolution(full, self.volume, turn, is_mirrored, self.source.pixel_size)


@dataclass(frozen=True)
class Score:
    """One epoch of one mode."""

    mode: str
    epoch: int
    mean_deg: float
    median_deg: float
    near: float
    resolution: float
    cpu_seconds: float
    seconds: float
    memory_mb: float

    def cells(self) -> list[object]:
        """Row of a table, see `_COLUMNS`."""
        memory = f"{self.memory_mb:.0f}" if self.memory_mb else "-"
        return [self.mode, self.epoch, f"{self.mean_deg:.1f}", f"{self.median_deg:.1f}", f"{100 * self.near:.1f} %",
                f"{self.resolution:.1f}", f"{self.cpu_seconds:.0f}", f"{self.seconds:.1f}", memory]  # fmt: skip


_COLUMNS = ["mode", "epoch", "mean error of poses, degrees", "median", "within 20 degrees", "FSC 0.5, Angstrom",
            "CPU-seconds so far", "seconds of the epoch", "GPU memory, MB"]  # fmt: skip


class Watch:
    """Scores of epochs, whose own time does not count."""

    def __init__(self, truth: Truth, mode: str, first_epoch: int = 0, cpu_seconds: float = 0.0) -> None:
        self._truth, self._mode, self._epoch, self._cpu = truth, mode, first_epoch, cpu_seconds
        self.scores: list[Score] = []
        self.last: Epoch | None = None

    def follow(self, epochs: Iterator[Epoch], shell: int) -> Watch:
        """Run to the end."""
        is_gpu = self._truth.slices.device != "cpu"
        while True:
            if is_gpu:
                torch.cuda.reset_peak_memory_stats()
            cpu, wall = time.process_time(), time.perf_counter()
            epoch = next(epochs, None)
            if epoch is None:
                return self
            self._cpu, self._epoch = self._cpu + time.process_time() - cpu, self._epoch + 1
            seconds = time.perf_counter() - wall
            memory = torch.cuda.max_memory_allocated() / 1e6 if is_gpu else 0.0
            turn, is_mirrored, error = align(epoch.rotation.cpu(), self._truth.rotation, _NO_SYMMETRY)
            reached = self._truth.reached(epoch.volume, shell, turn, is_mirrored)
            near = float((error < _INLIER_DEG).float().mean())
            score = Score(self._mode, self._epoch, float(error.mean()), float(error.median()), near, reached, self._cpu,
                          seconds, memory)  # fmt: skip
            print(" ".join(map(str, score.cells())), flush=True)
            self.scores.append(score)
            self.last = epoch


def amortized(
    problem: Problem, training: EncoderTraining, generator: torch.Generator, options: SemiAmortizedOptions,
    start: Tensor, epochs: int, local_steps: int,
) -> Iterator[Epoch]:  # fmt: skip
    """The encoder goes on naming poses."""
    encoding = replace(options.encoding, local_steps=local_steps, first_simulations=0)
    return encoded(problem, training, generator, replace(options, encoding=encoding, encoding_epochs=epochs), start)


def modes(truth: Truth, seed: int, after: int) -> tuple[list[Watch], EncoderTraining]:
    """Encoding from random spheres, and all modes that go on from its end."""
    options = replace(SemiAmortizedOptions(), decoding_epochs=after)
    generator = torch.Generator().manual_seed(seed)
    first, last = truth.problem(INPUT_SHELL), truth.problem(truth.images.disk.shell_max)
    training = new_training(truth.images, options, generator)
    start = random_spheres(first.images, _NO_SYMMETRY, generator, truth.slices).to(truth.images.ctf.device)
    watch = Watch(truth, "auto-encoding").follow(encoded(first, training, generator, options, start), INPUT_SHELL)
    assert watch.last is not None
    volume, epochs, cpu = watch.last.volume, watch.scores[-1].epoch, watch.scores[-1].cpu_seconds
    in_paper = replace(options, map_steps="adam", decoding=DecodingOptions(pose_steps=ADAM, batch_size=64))
    going_on: dict[str, Callable[[EncoderTraining, torch.Generator], Iterator[Epoch]]] = {
        "semi-amortized, Gauss-Newton": lambda t, g: decoded(last, t, g, options, volume),
        "semi-amortized, Adam of the paper": lambda t, g: decoded(last, t, g, in_paper, volume),
        "amortized": lambda t, g: amortized(last, t, g, options, volume, after, 0),
        "amortized, local steps": lambda t, g: amortized(last, t, g, options, volume, after, 3),
    }
    watches = [watch]
    for name, mode in going_on.items():
        own = torch.Generator().manual_seed(1000 + seed)
        learning = copy.deepcopy(training)
        steps = mode(learning, own)
        watches.append(Watch(truth, name, epochs, cpu).follow(steps, truth.images.disk.shell_max))
    return watches, training


def learning(truth: Truth, seed: int, epochs: int) -> list[Watch]:
    """What the encoder learns in other ways, from the same spheres."""
    ours = SemiAmortizedOptions()
    problem = truth.problem(INPUT_SHELL)
    choices = {
        "as published": PAPER,
        "as published, but from simulations": replace(
            PAPER, encoder_rate=ours.encoder_rate, encoding=replace(PAPER.encoding, learns_from=SIMULATIONS)
        ),
        "simulations, no local steps": replace(ours, encoding=replace(ours.encoding, local_steps=0)),
        "simulations, the winner takes all": replace(ours, encoding=replace(ours.encoding, weighs_poses=False)),
    }  # fmt: skip
    watches = []
    for name, options in choices.items():
        generator = torch.Generator().manual_seed(seed)
        training = new_training(truth.images, options, generator)
        start = random_spheres(problem.images, _NO_SYMMETRY, generator, truth.slices).to(truth.images.ctf.device)
        steps = encoded(problem, training, generator, replace(options, encoding_epochs=epochs), start)
        watches.append(Watch(truth, name).follow(steps, INPUT_SHELL))
    return watches


def low_maps(truth: Truth, seed: int) -> Iterator[tuple[str, Tensor, float]]:
    """Methods, their maps of low resolution, and CPU-seconds."""
    images, slices, shift = truth.images, truth.slices, truth.shift_std_px
    shell = images.disk.shell_max
    begun = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    mixture = first_mixture(images, 1, shift, _NO_SYMMETRY, generator, slices)
    for level in LEVELS:
        for better in improved(mixture, images, level, _NO_SYMMETRY, generator, slices, fits_shifts=False):
            mixture = better
    yield "em", mixture.volumes[0], time.process_time() - begun
    begun = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    shells = first_shell(images.disk.box_size, truth.source.pixel_size, shell), shell
    *_, progress = descended(images, shells, shift, _NO_SYMMETRY, generator, slices, SgdOptions())
    yield "sgd", progress.volume, time.process_time() - begun
    begun = time.process_time()
    generator, options = torch.Generator().manual_seed(seed), SemiAmortizedOptions()
    first, last = truth.problem(INPUT_SHELL), truth.problem(shell)
    training = new_training(images, options, generator)
    volume = random_spheres(first.images, _NO_SYMMETRY, generator, slices).to(images.ctf.device)
    for problem, phase in ((first, encoded), (last, decoded)):
        for epoch in phase(problem, training, generator, options, volume):
            volume = epoch.volume
    yield "semi-amortized", volume, time.process_time() - begun


def methods(truth: Truth, seed: int) -> list[list[object]]:
    """Rows of the table of methods."""
    found: dict[str, Callable[..., Structure]] = {
        "em": find_structure, "sgd": find_structure_by_sgd, "semi-amortized": find_structure_by_semi_amortized,
    }  # fmt: skip
    rows = []
    for name, volume, seconds in low_maps(truth, seed):
        rotation, _, _ = best_poses(truth.images, volume, truth.shift_std_px, truth.slices)
        cells = _scored(truth, rotation, volume, truth.images.disk.shell_max)
        begun = time.process_time()
        structure = found[name](truth.source, AbinitioOptions(seed=seed), _silent, slices=truth.slices)
        whole = time.process_time() - begun
        row = [seed, name, *cells, f"{seconds:.0f}"]
        end = _scored(truth, structure.pose.rotation, structure.volumes[0], truth.source.disk.shell_max)
        rows.append([*row, *end, "yes" if structure.verdict.found else "no", f"{whole:.0f}"])
        print(" ".join(map(str, rows[-1])), flush=True)
    return rows


def _scored(truth: Truth, rotation: Tensor, volume: Tensor, shell: int) -> list[object]:
    turn, is_mirrored, error = align(rotation.cpu(), truth.rotation, _NO_SYMMETRY)
    near = 100 * float((error < _INLIER_DEG).float().mean())
    return [f"{truth.reached(volume, shell, turn, is_mirrored):.1f}", f"{float(error.mean()):.1f}", f"{near:.1f} %"]


def _silent(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
    """Report of a search that nobody reads."""


def draw_errors(watches: list[Watch]) -> Path:
    """Figure of the error of poses against the epoch (figure 4 of the paper)."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for watch in watches:
        epochs, errors = zip(*((score.epoch, score.mean_deg) for score in watch.scores), strict=True)
        axis.plot(epochs, errors, "o-", label=watch.scores[0].mode)
    axis.axvline(watches[0].scores[-1].epoch + 0.5, color="grey", linestyle=":")
    axis.set(xlabel="epoch", ylabel="mean error of poses, degrees", ylim=(0, None))
    axis.legend()
    return _saved(figure, "semi_amortized_errors")


def draw_heads(truth: Truth, training: EncoderTraining, epoch: Epoch) -> Path:
    """Figure of the error of each head against the direction of view (figure 8 of the paper)."""
    pyplot = _pyplot()
    problem = truth.problem(INPUT_SHELL)
    training = copy.deepcopy(training)
    named = training.candidates(problem, problem.images)[0].cpu()
    turn, is_mirrored, _ = align(epoch.rotation.cpu(), truth.rotation, _NO_SYMMETRY)
    reference = truth.rotation @ _HALF_TURN if is_mirrored else truth.rotation
    view = truth.rotation[:_DRAWN, :, 2]
    longitude = torch.atan2(view[:, 1], view[:, 0]).numpy()
    latitude = torch.asin(view[:, 2].clamp(-1, 1)).numpy()
    heads = named.shape[1]
    columns = 4
    figure, axes = pyplot.subplots(
        -(-heads // columns), columns, figsize=(11, 1.7 * -(-heads // columns)), layout="constrained",
        subplot_kw={"projection": "mollweide"}, squeeze=False,
    )  # fmt: skip
    for head, axis in enumerate(axes.flat):
        if head >= heads:
            axis.set_axis_off()
        else:
            error = distances(named[:_DRAWN, head], reference[:_DRAWN], turn, _NO_SYMMETRY).numpy()
            axis.set(title=f"head {head + 1}", xticklabels=[], yticklabels=[])
            shown = axis.scatter(longitude, latitude, c=error, s=4, cmap="coolwarm", vmin=0, vmax=180)
    figure.colorbar(shown, ax=axes, label="error, degrees", shrink=0.8)
    return _saved(figure, "semi_amortized_heads")


def _pyplot():  # type: ignore[no-untyped-def]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _saved(figure, name: str) -> Path:  # type: ignore[no-untyped-def]
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / f"{name}.png"
    figure.savefig(path, dpi=80)
    _pyplot().close(figure)
    return path


def measured_modes(truth: Truth, seeds: int, after: int) -> str:
    """Tables and figures of the modes; figures are of the first seed."""
    texts = []
    for seed in range(seeds):
        watches, training = modes(truth, seed, after)
        rows = [score.cells() for watch in watches for score in watch.scores]
        texts.append(f"Seed {seed}:\n\n{table(_COLUMNS, rows)}")
        if not seed:
            assert watches[0].last is not None
            draw_errors(watches)
            draw_heads(truth, training, watches[0].last)
    texts.append("![error of poses](figures/semi_amortized_errors.png)\n\n![heads](figures/semi_amortized_heads.png)")
    return "\n\n".join(texts)


def measured_learning(truth: Truth, epochs: int) -> str:
    """Table of other ways to learn: the last epoch of each."""
    return table(_COLUMNS, [watch.scores[-1].cells() for watch in learning(truth, 0, epochs)])


def measured_methods(truth: Truth, seeds: int) -> str:
    """Table of methods."""
    of_map = ["FSC 0.5 of the map, Angstrom", "mean error of best poses, degrees", "within 20 degrees", "CPU-seconds"]
    of_end = ["FSC 0.5 at the end", "mean error", "within 20 degrees", "structure", "CPU-seconds in all"]
    rows = [row for seed in range(seeds) for row in methods(truth, seed)]
    return table(["seed", "method", *of_map, *of_end], rows)


def main() -> None:
    """Make the tables and the figures."""
    parser = script_parser(
        __doc__, work=True, box=32, particles=4000, snr=0.4, seeds=3, after=6, epochs=20, threads=1
    )
    parser.add_argument("--device", default="cpu", help="where all is computed")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    folder = simulated(
        arguments.work, "static", box=arguments.box, particles=arguments.particles, pixel_size=192 / arguments.box,
        snr=arguments.snr, seed=1, threads=arguments.threads,
    )  # fmt: skip
    truth = Truth.of(folder, arguments.device)
    parts: dict[str, Callable[[], str]] = {
        "modes": lambda: measured_modes(truth, arguments.seeds, arguments.after),
        "learning": lambda: measured_learning(truth, arguments.epochs),
        "methods": lambda: measured_methods(truth, arguments.seeds),
    }
    for part in arguments.parts:
        text = f"Data set `{folder.name}`.\n\n{parts[part]()}\n\n{provenance(arguments.threads)}"
        finish(f"semi_amortized_{part}", text, arguments)


if __name__ == "__main__":
    main()
