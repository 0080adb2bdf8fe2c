"""Where there is no GPU, Triton's interpreter takes its place: it must know before the kernels are imported."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
