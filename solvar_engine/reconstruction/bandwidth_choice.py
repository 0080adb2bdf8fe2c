"""Choice of the kernel by cross-validation, for every window and shell of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume
from solvar_engine.imaging.shells import coefficients_per_shell
from solvar_engine.reconstruction.kernel_regression import KernelSums, Template, half_set_estimates, template
from solvar_engine.reconstruction.windows import LocalWindows

_CAUTION = 0.25  # standard deviations by which a kernel must be better than the flat one
_INDEPENDENT = 0.6  # real numbers that a coefficient of a window stands for: windows overlap and taper off


@dataclass(frozen=True)
class _Agreement:
    """Sums over windows and shells, shape (windows, shells): of an estimate v, the flat one f and the template t."""

    with_template: Tensor
    with_flat: Tensor
    power: Tensor

    def __add__(self, other: _Agreement) -> _Agreement:
        return _Agreement(
            self.with_template + other.with_template, self.with_flat + other.with_flat, self.power + other.power
        )


def choose_kernels(
    halves: tuple[KernelSums, KernelSums],
    offsets: tuple[Tensor, Tensor],
    windows: LocalWindows,
    mask: Tensor | None,
) -> Tensor:
    """Choose the kernel that predicts the other half best, window by window and shell by shell.

    The narrowest kernel of the other half, t, is the least biased, and its noise is independent. The squared error of
    a prediction v against it, at its best scale (a later filter scales every shell of every window anyway), is least
    where the correlation <v, t> / (|v| |t|) is largest. With few images t is mostly noise, which would choose at random
    and cost more than the right choice gains; so the correlation of every kernel is lowered by a share of the standard
    deviation of its difference to that of the flat kernel.

    Parameters
    ----------
    halves, offsets, mask
        As for :func:`~.kernel_regression.half_set_estimates`.
    windows : LocalWindows

    Returns
    -------
    Tensor, shape (windows, shells), int64
    """
    templates = [template(half, offset) for half, offset in zip(halves, offsets, strict=True)]
    targets = [windows.analyse(ft_to_volume(known.spectrum, windows.box_size)) for known in templates]
    power = _smooth(sum((windows.shell_sums(target.abs() ** 2) for target in targets), torch.zeros(())), windows)
    # estimates of one half are compared with the template of the other one
    templates.reverse()
    targets.reverse()
    kernels = len(halves[0])
    flat = [
        _seen_through(known, estimate, windows)
        for known, estimate in zip(templates, half_set_estimates(halves, offsets, kernels - 1, mask), strict=True)
    ]
    agreements = []
    for kernel in range(kernels):
        first, second = (
            _agreement(_seen_through(known, estimate, windows), target, reference, windows)
            for known, estimate, target, reference in zip(
                templates, half_set_estimates(halves, offsets, kernel, mask), targets, flat, strict=True
            )
        )
        agreements.append(first + second)
    return torch.stack([_score(agreement, agreements[-1], power, windows) for agreement in agreements]).argmax(dim=0)


def _seen_through(known: Template, estimate: Tensor, windows: LocalWindows) -> Tensor:
    """Local spectra of an estimate under the gain of a template."""
    return windows.analyse(ft_to_volume(estimate * known.gain, windows.box_size))


def _agreement(seen: Tensor, target: Tensor, flat: Tensor, windows: LocalWindows) -> _Agreement:
    products = ((seen * target.conj()).real, (seen * flat.conj()).real, seen.abs() ** 2)
    return _Agreement(*(_smooth(windows.shell_sums(product), windows) for product in products))


def _score(agreement: _Agreement, flat: _Agreement, template_power: Tensor, windows: LocalWindows) -> Tensor:
    """Correlation with the template, less what noise alone may add to it; shape (windows, shells)."""
    tiny = torch.finfo(torch.float64).tiny
    correlation = agreement.with_template / (agreement.power * template_power).clamp_min(tiny).sqrt()
    likeness = agreement.with_flat / (agreement.power * flat.power).clamp_min(tiny).sqrt()
    count = _INDEPENDENT * coefficients_per_shell(windows.size)
    return correlation - _CAUTION * ((2 - 2 * likeness).clamp_min(0) / count).sqrt()


def _smooth(values: Tensor, windows: LocalWindows) -> Tensor:
    return windows.smooth(windows.smooth(values))


def compose(
    halves: tuple[KernelSums, KernelSums],
    offsets: tuple[Tensor, Tensor],
    choice: Tensor,
    windows: LocalWindows,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Volumes of both half-sets with the chosen kernel in every window and shell.

    Parameters
    ----------
    halves, offsets, mask
        As for :func:`~.kernel_regression.half_set_estimates`.
    choice : Tensor, shape (windows, shells), int64
        Kernel of each window and shell.
    windows : LocalWindows

    Returns
    -------
    tuple of two Tensors, shape (z, y, x), float32
        Windows overlap, so that neighbouring choices blend.
    """
    box_size = windows.box_size
    volumes = [torch.zeros((box_size,) * 3) for _ in halves]
    for kernel in torch.unique(choice).tolist():
        chosen = windows.spread((choice == kernel).float(), beyond=(choice[:, -1] == kernel).float())
        for volume, estimate in zip(volumes, half_set_estimates(halves, offsets, kernel, mask), strict=True):
            volume += windows.synthesise(windows.analyse(ft_to_volume(estimate, box_size)) * chosen)
    return volumes[0], volumes[1]
