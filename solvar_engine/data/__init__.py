"""Particles and volumes on disk: what STAR and MRC files hold, checked, as tensors.

Others use `particles` (`ParticleStack`: images and what is known of them), `metadata` (what the columns mean),
`symmetry` (a row for each orientation that a point group makes equal), `preprocess` and `stream` (images as half-disk
coefficients, batch by batch), `noise` (of what a model leaves), `volumes` (maps and masks), `faults` (images that
cannot be used), `pixel_faults` (pixels that are replaced), `copies` (images that hold the same noise), `cryosparc`
(its files, read and written) and `mrc` (the format itself); `images` and `stacks` find and read the images of a
`ParticleStack`, `header_doubts` compares headers with files, and `image_names` finds those of one list in another.
"""
