"""Minimisation of finite sums: all of their terms at a time, or random batches of them; gradients, or steps of EM.

Others use `fields` (what a sum must offer, and `GradientField` and `ResidualField`, which make of it what a solver
brings to zero, and count the passes over the sum), the solvers of `descent`, `variance_reduction`, `extrapolation`,
`limited_memory` and `online`, and for those of `variance_reduction` the metrics of `metrics`.

All have one form: `step` moves `point`, and `passes` says what that cost. A solver that follows gradients is one that
accelerates EM with another field.

Paul 2024 is S. Paul, On learning and optimization in inverse problems with group structured latent variables,
dissertation, University of Chicago.
"""
