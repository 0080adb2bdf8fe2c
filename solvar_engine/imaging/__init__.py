"""The physics of one image: poses, contrast transfer, Fourier transforms, shells and masks.

The lowest room, whose modules are all for others: `types` (poses, CTF parameters, volumes, batches of images), `ctf`,
`fourier` (the only transforms, and `HalfDisk`, the pixels of an image), `rotation`, `so3_grid` (rotations and shifts
that cover all poses), `symmetry` (point groups), `pose_derivatives`, `gauge` (what no image can tell of poses),
`frames` (how one map lies beside another),
`shells`, `masks`, `linear_algebra` (of sets of volumes) and `sampling` (of rows), `background` (what changes slowly
from edge to edge of an image), `aberrations` (beside the CTF: odd ones, and distortion), and `harmonics` (of the
sphere, real).
"""
