"""What an image is under the model: inner products, objectives, posteriors.

Other rooms use:

- `bands`: `Band` with `make_band`, the model of images cut to some shells, `change_box`;
- `statistics.Statistics`, the inner products that are all an objective needs of an image;
- `objectives`: `OBJECTIVES`, `Objective`, `LatentPosterior` with `latent_posterior`; `penalties` regularise them;
- `expectation`: `expectation_pass` for a solver, `posterior_pass` for whatever asks each image;
- `contrast` and `residuals` (`residual_power`, `ResidualNoise`): variance of contrasts, spectra of the noise;
- `fixed_factors`: `collect_statistics` and `latent_covariance`, for factors that others have found;
- `mixture`: `GaussianMixture`, the density of the latents, and `mixture_posterior`; `mixture_choice` finds it;
- `half_models`: `explain`, `scale_to_images`, `half_version`, for finished models of half-sets.
"""
