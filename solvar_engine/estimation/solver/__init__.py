"""How the factors of the covariance are found: band by band, two half-sets first, then all images.

Other rooms use:

- `problem.CovarianceProblem`, what a fit is about, and `schedule.Schedule`, how it is approached;
- `half_sets`: `fit_half_sets` and `fit_full_set`, iterators of `HalfSetState` and `FullSetState`;
- `epochs.Factors`, what those states hold;
- `gauge` and `agreement`: factors in one gauge, and how far those of two half-sets agree (`covariance_fsc`).

`epochs.run_epoch`, `preconditioner` and `priors` are the solver's own.
"""
