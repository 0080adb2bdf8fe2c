"""Small, exact models of orbit recovery: test beds of solvers (chapter 4 of Paul 2024).

Others use `mixture` (`OrbitMixture`, the likelihood of noisy observations of an unknown in many known positions),
`alignment` (windowed multireference alignment), `cryo_em` (a volume of low dimension and its projections), which make
instances of it, and `harmonics` and `quadrature`, the basis of that volume and its orientations.
"""
