"""The alternation of mean, factors, poses, noise and outliers: everything that a fit does to the half-sets.

Other rooms use `problem.AlternationProblem`, `problem.Masks` and `problem.of_no_half`, `means.half_set_equations`,
`state.AlternationState` and `state.Step`, `iteration.alternate` (an iterator of states) and
`iteration.half_set_fit` with its `HalfSetFit`.
"""
