"""
@article{Yadgar2026,
  title   = {SOLVAR: Fast covariance-based heterogeneity analysis with pose refinement for cryo-EM},
  author  = {Yadgar, Roey and Lederman, Roy R. and Shkolnisky, Yoel},
  journal = {Preprint},
  year    = {2026},
  url     = {https://github.com/RoeyYadgar/SOLVAR}
}
"""
