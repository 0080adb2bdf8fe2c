"""The convolutional network that names a few poses for an image, and what of an image it is shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.moments.encoder import Encoder
from solvar_engine.abinitio.semi_amortized.rotations import s2s2_to_rotation
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images
from solvar_engine.imaging.shells import shell_means

INPUT_BOX, INPUT_SHELL = 16, 6
"""Box of the images that enter, px, and the last shell of these."""

_BLOCKS = 3  # each of two convolutions, and half the box
_FEATURES, _HIDDEN = 512, 256
_LEAST_POWER = 1e-3  # of the signal, over the noise


class PoseEncoder(Encoder):
    """Blocks of convolutions, as VGG has, and a fully connected head for each pose (equation 1).

    Much smaller than the VGG16 of the paper, as the images of 16 px are.

    Parameters
    ----------
    heads : int
        M, poses that are named for each image.
    width : int
        Channels of the first block; each further one has twice as many.
    box_size : int
        Of the images, px; a multiple of 8.
    """

    def __init__(self, heads: int = 8, width: int = 32, box_size: int = INPUT_BOX) -> None:
        super().__init__()
        self.settings = {"heads": heads, "width": width, "box_size": box_size}
        channels = [1, *(width * 2**block for block in range(_BLOCKS))]
        layers: list[nn.Module] = []
        for entering, leaving in zip(channels[:-1], channels[1:], strict=True):
            for come in (entering, leaving):
                layers += [nn.Conv2d(come, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU()]
            layers.append(nn.AvgPool2d(2))
        pixels = (box_size // 2**_BLOCKS) ** 2
        layers += [nn.Flatten(), nn.Linear(channels[-1] * pixels, _FEATURES), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        # the layers of all heads are one tensor each: one product for all
        self.weight1 = nn.Parameter(torch.zeros(heads, _FEATURES, _HIDDEN))
        self.bias1 = nn.Parameter(torch.zeros(heads, 1, _HIDDEN))
        self.weight2 = nn.Parameter(torch.zeros(heads, _HIDDEN, 8))
        self.bias2 = nn.Parameter(torch.zeros(heads, 1, 8))

    @staticmethod
    def random(heads: int, width: int, generator: torch.Generator) -> PoseEncoder:
        """Encoder whose weights are drawn from a generator; each head begins with a rotation of its own."""
        encoder = PoseEncoder(heads, width)
        for layer in encoder.features:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(encoder.weight1, std=(2 / _FEATURES) ** 0.5, generator=generator)
        nn.init.normal_(encoder.weight2, std=(1 / _HIDDEN) ** 0.5, generator=generator)
        nn.init.normal_(encoder.bias2[..., :6].data, generator=generator)
        return encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Poses that images (n, 1, y, x) may have.

        Returns
        -------
        rotation : Tensor, shape (n, M, 3, 3)
        shift : Tensor, shape (n, M, 2)
            (x, y) that centres the image, in standard deviations of the shifts.
        """
        hidden = torch.relu(torch.einsum("nf,mfh->mnh", self.features(images), self.weight1) + self.bias1)
        found = (hidden @ self.weight2 + self.bias2).transpose(0, 1)
        return s2s2_to_rotation(found[..., :6]), found[..., 6:]


@dataclass(frozen=True)
class EncoderInput:
    """How coefficients become what the encoder is shown: projections as a Wiener filter estimates them.

    So the transfer functions, which differ from image to image, are undone as far as they can be.

    Attributes
    ----------
    disk : HalfDisk
        Of the images' lowest shells.
    signal : Tensor, shape (pixels,)
        Variance of the projections at each pixel, over that of the noise.
    scale : float
        Standard deviation of what is shown, which is divided by it.
    """

    disk: HalfDisk
    signal: Tensor
    scale: float

    @staticmethod
    def of(images: LowImages) -> EncoderInput:
        """Of the power that images have beyond the noise."""
        low = images.cut(min(INPUT_SHELL, images.disk.shell_max))
        power = shell_means(low.images.abs().square().mean(dim=0), low.disk)
        transfer = shell_means(low.ctf.square().mean(dim=0), low.disk).clamp_min(1e-12)
        variance = (power - 1).clamp_min(_LEAST_POWER) / transfer
        variance[0] = variance[1]  # hardly anything is known of the origin
        unscaled = EncoderInput(low.disk, variance.to(low.ctf)[low.disk.shell.to(low.ctf.device)], 1.0)
        return EncoderInput(low.disk, unscaled.signal, float(unscaled(low).std()))

    def __call__(self, images: LowImages) -> Tensor:
        """Images (n, 1, y, x) of the encoder's box."""
        count = len(self.disk)
        ctf = images.ctf[:, :count]
        filtered = images.images[:, :count] * (ctf * self.signal / (1 + ctf.square() * self.signal))
        return disk_to_images(filtered, self.disk, INPUT_BOX)[:, None] / self.scale
