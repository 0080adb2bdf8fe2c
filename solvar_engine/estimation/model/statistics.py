"""All that an objective needs to know of an image: a few inner products.

The mean and the r factors are sliced together; per image the inner products of the slices with each other and with the
image suffice for the value of the likelihood at any contrast, so a search over contrasts costs no projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
        |Y - a P mu|^2, or what stands in its place once a column is integrated out: minus twice the log-likelihood of
        the image without the factors, up to a constant.
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
        rank = products.shape[-1] - 2
        return _evaluate(products, contrast, list(range(1, rank + 1)), [1.0] * rank)

    @staticmethod
    def with_contrast_error(products: Tensor, contrast: Tensor, deviation: float) -> Statistics:
        """Evaluate at a contrast that is known up to an error: one more column, after the factors.

        The contrast is a (1 + s c) with c ~ N(0, 1) like the latents. To first order that adds c times s a P mu: the
        mean itself becomes a factor, of a direction that is not fitted.

        Parameters
        ----------
        products, contrast
            As for :meth:`at_contrast`.
        deviation : float
            s.

        Returns
        -------
        Statistics
            Of r + 1 columns.
        """
        rank = products.shape[-1] - 2
        return _evaluate(products, contrast, [*range(1, rank + 1), 0], [1.0] * rank + [deviation])

    @staticmethod
    def of_mixtures(products: Tensor, mixtures: Tensor) -> Statistics:
        """Evaluate for columns that are mixtures of the slices.

        Parameters
        ----------
        products : Tensor, shape (n, r + 2, r + 2), float64
            As for :meth:`at_contrast`.
        mixtures : Tensor, shape (n, r + 2, k + 1), float64
            Weights of (P mu, P v_1, ..., P v_r, Y) in each of k columns and, last, in what these are to explain.
        """
        mixed = mixtures.mT @ products @ mixtures
        return Statistics(mixed[:, :-1, :-1], mixed[:, :-1, -1], mixed[:, -1, -1])

    def __getitem__(self, rows: Tensor | slice) -> Statistics:
        return Statistics(self.gram[rows], self.inner[rows], self.residual[rows])

    def for_mixtures(self) -> Statistics:
        """Same in float64 and on the CPU, where mixtures are fitted."""
        return Statistics(self.gram.double().cpu(), self.inner.double().cpu(), self.residual.double().cpu())

    def integrate_out(self, columns: Sequence[int]) -> Statistics:
        """Statistics of the other columns when some are marginalised, each with the prior N(0, 1).

        With C the rows of G that belong to the other columns, and G_o, b_o of those integrated out:
        G <- G - C (I + G_o)^-1 C^T, b <- b - C (I + G_o)^-1 b_o (Woodbury), and the residual likewise plus
        log det(I + G_o).
        """
        out = list(columns)
        keep = [j for j in range(self.gram.shape[-1]) if j not in out]
        identity = torch.eye(len(out), dtype=self.gram.dtype, device=self.gram.device)
        lower = torch.linalg.cholesky(identity + self.gram[:, out][:, :, out])
        cross = torch.linalg.solve_triangular(lower, self.gram[:, out][:, :, keep], upper=False)
        inner = torch.linalg.solve_triangular(lower, self.inner[:, out, None], upper=False)
        log_determinant = 2 * torch.diagonal(lower, dim1=-2, dim2=-1).log().sum(dim=-1)
        return Statistics(
            self.gram[:, keep][:, :, keep] - cross.transpose(1, 2) @ cross,
            self.inner[:, keep] - (cross.transpose(1, 2) @ inner)[..., 0],
            self.residual - inner.square().sum(dim=(1, 2)) + log_determinant,
        )


def linear_mixtures(contrast: Tensor, deviation: float, about: Tensor) -> Tensor:
    """The model of images with an unknown contrast a (1 + s c), to first order about some (z, c), as mixtures.

    Contrast and latent coordinates multiply each other: an image that is twice as bright shows twice as much of its
    motion, too. About m and u, with a_u = a (1 + s u), it is Y - a P mu + a s u P V m = a_u P V z + a s c P (mu + V m).

    Parameters
    ----------
    contrast : Tensor, shape (n,)
        a.
    deviation : float
        s.
    about : Tensor, shape (n, r + 1), float64
        m and, last, u.

    Returns
    -------
    Tensor, shape (n, r + 2, r + 2), float64
        For `Statistics.of_mixtures`: columns of z, the column of c, and what they are to explain.
    """
    a, rank = contrast.to(about), about.shape[1] - 1
    place, error = about[:, :-1], about[:, -1]
    of_contrast, factors = a * deviation, slice(1, rank + 1)
    mixtures = about.new_zeros(len(about), rank + 2, rank + 2)
    mixtures[:, factors, :rank] = torch.diag_embed((a + of_contrast * error)[:, None].expand(-1, rank))
    mixtures[:, 0, rank], mixtures[:, factors, rank] = of_contrast, of_contrast[:, None] * place
    mixtures[:, 0, -1], mixtures[:, factors, -1] = -a, (of_contrast * error)[:, None] * place
    mixtures[:, -1, -1] = 1
    return mixtures


def about_expected(products: Tensor, expected: Tensor) -> Tensor:
    """Inner products with the mean moved to where each image is expected: P mu + P F d in the place of P mu.

    Parameters
    ----------
    products : Tensor, shape (n, r + f + 2, r + f + 2), float64
        Inner products of (P mu, P v_1, ..., P v_r, P F, Y).
    expected : Tensor, shape (n, f), float64
        d, along the last f factors.

    Returns
    -------
    Tensor, same shape as ``products``
    """
    count = expected.shape[1]
    if not count:
        return products
    columns = slice(-1 - count, -1)
    moved = products.clone()
    moved[:, :, 0] += (moved[:, :, columns] @ expected[:, :, None])[..., 0]
    moved[:, 0, :] += (expected[:, None, :] @ moved[:, columns, :])[:, 0]
    return moved


def _evaluate(products: Tensor, contrast: Tensor, columns: list[int], scales: list[float]) -> Statistics:
    """Statistics of some columns of the model, each times a scale."""
    a = contrast.to(products.dtype)
    scale = a[:, None] * products.new_tensor(scales)
    gram = scale[:, :, None] * products[:, columns][:, :, columns] * scale[:, None, :]
    inner = scale * (products[:, columns, -1] - a[:, None] * products[:, columns, 0])
    residual = products[:, -1, -1] - 2 * a * products[:, 0, -1] + a**2 * products[:, 0, 0]
    return Statistics(gram, inner, residual)
