"""The device that a command computes on."""

from __future__ import annotations

from solvar_engine.contract.params import SUPPORTED_DEVICES, Params


def compute_device(params: Params) -> str:
    """Name of the device for PyTorch.

    The command line settles ``auto`` before a command starts; a program that calls it without one may leave that in.

    Examples
    --------
    >>> from solvar_engine.contract.params import AnalyzeParams
    >>> compute_device(AnalyzeParams(run="hinge/run"))
    'cpu'
    """
    return SUPPORTED_DEVICES[0] if params.device == "auto" else params.device
