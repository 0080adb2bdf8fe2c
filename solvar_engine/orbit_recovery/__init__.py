"""Small, exact models of orbit recovery: test beds of solvers (chapter 4 of Paul 2024).

Paul 2024 is S. Paul, On learning and optimization in inverse problems with group structured latent variables,
dissertation, University of Chicago.

Others use `mixture` (`OrbitMixture`, the likelihood of noisy observations of an unknown in many known positions),
`alignment` (windowed multireference alignment), `cryo_em` (a volume of low dimension and its projections), which make
instances of it, and `harmonics` and `quadrature`, the basis of that volume and its orientations.
"""
