"""All that an objective needs to know of an image: a few inner products.

The mean and the r factors are sliced together; per image the inner products of the slices with each other and with the
image suffice for the value of the likelihood at any contrast, so a search over contrasts costs no projection.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Sufficient statistics of n images under mean + factors at given contrasts, float64.

    Attributes
    ----------
    gram : Tensor, shape (n, r, r)
        <a P v_i, a P v_j>: how strongly the factors show in the image.
    inner : Tensor, shape (n, r)
        <a P v_j, Y - a P mu>.
    residual : Tensor, shape (n,)
        |Y - a P mu|^2.
    """

    gram: Tensor
    inner: Tensor
    residual: Tensor

    @staticmethod
    def at_contrast(products: Tensor, contrast: Tensor) -> Statistics:
        """Evaluate at a contrast: G(a) = a^2 G, b(a) = a (c - a G_0), yy(a) = y - 2 a c_0 + a^2 G_00.

        Parameters
        ----------
        products : Tensor, shape (n, r + 2, r + 2), float64
            Inner products of (P mu, P v_1, ..., P v_r, Y) at contrast 1.
        contrast : Tensor, shape (n,)

        Returns
        -------
        Statistics
        """
        a = contrast.to(products.dtype)
        mean_inner, factor_inner = products[:, 0, -1], products[:, 1:-1, -1]
        gram = a[:, None, None] ** 2 * products[:, 1:-1, 1:-1]
        inner = a[:, None] * (factor_inner - a[:, None] * products[:, 1:-1, 0])
        residual = products[:, -1, -1] - 2 * a * mean_inner + a**2 * products[:, 0, 0]
        return Statistics(gram, inner, residual)
