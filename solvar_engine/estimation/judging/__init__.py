"""What is found on images that took no part: scale, rank, outliers, nuisance.

Other rooms use:

- `components`: `measure_components`, the principal `Components` on their held-out scale, and `latent_coordinates`;
- `bootstrap`: how far off estimates are, `ErrorFactors`, from images that are made from the model;
- `own_influence`: `measure_own_influence` of images on components, and coordinates `without_own_influence`;
- `rank`: `judge_components` for a `RankDecision`, and `keep_components`, which follows it;
- `outliers`: `image_fits` and `find_outliers`;
- `nuisance.nuisance_overlap`.
"""
