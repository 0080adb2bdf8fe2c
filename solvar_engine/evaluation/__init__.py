"""How close an estimate comes to a known truth. Pure functions: arrays in, numbers out.

Others use `metrics` (`evaluate_estimate`: all figures of an estimate), `frames` (an estimate in the frame of the truth)
and `information_limit`; of its parts,
`covariance_scores`, `fsc_auc`, `latent_scores` and `pose_scores`, each can be called alone, as the benchmarks do.
"""
