"""Structures from the first and second moment of the images (Kam, J. Theor. Biol. 1980; Khoo, Paul & Sharon 2023).

Others use `search` (`find_structure_by_moments`). `steerable` sums the moments of images in one pass, `analytic` has
those of a map in a `basis`, and `recovery` the map of given moments. `networks` make map, views and shifts of moments
(MoM-net), and `training` trains them or fits their weights. `alignment` and `encoder` are the same for a signal that is
moved along a line, multireference alignment, with a network as prior.

Paul 2024 is S. Paul, On learning and optimization in inverse problems with group structured latent variables,
dissertation, University of Chicago.
"""
