"""Volumes from images: normal equations, regularised half-set means, states by kernel regression.

Others use `normal_equations` (sums over images), `mean` (`estimate_mean`: half-set means with their correlation),
`kernel_regression` and `kernel_blending` (the volume at a point of the latent space), `windows` and `filtering` (local
spectra, correlation, resolution) and `sharpening`.
"""
