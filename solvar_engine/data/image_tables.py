"""What is found out about each image while it is read: tables that all processes that share the images fill."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from solvar_engine.data.copies import SIGNATURE_LENGTH
from solvar_engine.distributed.world import World


@dataclass
class ImageTables:
    """Rows of images that were not read are zero.

    Attributes
    ----------
    deviation : Tensor, shape (n,), float32
        Of the background.
    inner : Tensor, shape (n,), float32
        Deviation of the noise within the particle over that outside.
    near_zeros : Tensor, shape (n,), float32
        Power near zeros of the transfer function of images that were multiplied with it.
    digest : Tensor, shape (n,), int64
        Of the pixels on disk.
    signature : Tensor, shape (n, SIGNATURE_LENGTH), int8
        Of the noise.
    single : Tensor, shape (n,), int64
        Pixels that were replaced.
    depth : Tensor, shape (n,), int64
        Of edges that repeat, px.
    is_bad : Tensor, shape (n,), int64
        1 of images without content.
    """

    deviation: Tensor
    inner: Tensor
    near_zeros: Tensor
    digest: Tensor
    signature: Tensor
    single: Tensor
    depth: Tensor
    is_bad: Tensor

    @staticmethod
    def empty(count: int) -> ImageTables:
        """Before anything is read."""
        deviation, inner, near_zeros = torch.zeros(3, count)
        digest, single, depth, is_bad = torch.zeros(4, count, dtype=torch.int64)
        signature = torch.zeros(count, SIGNATURE_LENGTH, dtype=torch.int8)
        return ImageTables(deviation, inner, near_zeros, digest, signature, single, depth, is_bad)

    def complete(self, rows: Tensor, image: Tensor, world: World) -> None:
        """Give rows (m,) what was found of their images, which are rows themselves (m,), and add up all processes."""
        names = [field.name for field in fields(self)]
        for name in names:
            table = getattr(self, name)
            table[rows] = table[image]
        for name, table in zip(names, world.total(*(getattr(self, name) for name in names)), strict=True):
            setattr(self, name, table)
