"""Structures from images without poses.

Others use `structure` (`find_structure`, with its options, its result and the verdict whether there is a structure),
`sgd` (`sgd.search.find_structure_by_sgd`, the same from another search at low resolution), `moments`
(`moments.search.find_structure_by_moments`, the same from a map of the images' moments; `moments.encoder` writes and
reads weights of networks) and `semi_amortized` (`semi_amortized.search.find_structure_by_semi_amortized`, the same from
poses that a network names; `semi_amortized.encoder`).
Nothing here reads or writes files: images come from a `ParticleSource` (`imaging.types`).
"""
