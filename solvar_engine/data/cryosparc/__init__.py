"""cryoSPARC's particles: `.cs` files read as the STAR file that says the same, and written back with what was found.

Others use `lists` (particles of either kind of file) and `results` (a run's `.cs` files). `tables` reads and joins the
files, `columns` says what each field is in RELION's terms.

Fields as cryosparc-tools documents them (tools.cryosparc.com), conventions of pyem (csparc2star.py, by D. Asarnow):
`alignments3D/pose` is the rotation vector of the rotation from image to volume, `alignments3D/shift` the origin in
pixels of `alignments3D/psize_A`, with RELION's sign.
"""
