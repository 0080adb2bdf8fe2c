"""Deliberate faults for `mutants.py`: what stands in the engine, what stands there instead, and who should notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    text : str
        What the engine says; exactly once in all its files, so that the file may be renamed or split.
    instead : str
        What it says with the fault.
    wrong : str
        The fault in a phrase.
    tests : tuple of str
        Files of tests of which one should notice.
    """

    text: str
    instead: str
    wrong: str
    tests: tuple[str, ...]


def _of(tests: str, *faults: tuple[str, str, str]) -> list[Fault]:
    """Faults that the same files of tests, named in one text, should notice."""
    return [Fault(text, instead, wrong, tuple(tests.split())) for text, instead, wrong in faults]


_JUDGING = [
    *_of(
        "tests/jobs/fit/test_more_components.py",
        ("more = min(2 * job.tried_rank,", "more = min(3 * job.tried_rank,", "three times the components"),
        ("(most_are_real and decoys_gain)", "(most_are_real or decoys_gain)", "more components where noise is wrong"),
        ("- cross.mT @ torch.linalg.solve(others, cross)", "", "leading latents as if the others were known"),
    ),
    *_of(
        "tests/estimation/judging/test_components.py",
        ("variances * (1 - 0.5 / gain", "variances * (1 + 0.5 / gain", "variances raised by their error"),
        (
            "mix(half, root) for half, root in zip(halves, roots",
            "half for half, root in zip(halves, roots",
            "half-sets laid on each other with their noise",
        ),
        ("turns = left, right.T", "turns = left, right", "half-sets turned the wrong way"),
        (
            "gain[:, None] * 0.5 * (grams[0] + grams[1]) * gain[None, :]",
            "0.5 * (grams[0] + grams[1])",
            "variance of half-set directions taken for that of all",
        ),
        ("(energy * 2 / (1 + correlation))", "(energy / (1 + correlation))", "Spearman-Brown without its factor 2"),
        (
            "@ torch.linalg.inv(_positive_root(gram)) @ vectors",
            "@ vectors",
            "axes of the half-sets as long as their variance",
        ),
        (
            "return mix(factors, left @ right)",
            "return mix(factors, (left @ right).T)",
            "Procrustes rotation transposed",
        ),
        ("** 3).sum(dim=1) < 0, -1.0, 1.0)", "** 3).sum(dim=1) < 0, 1.0, -1.0)", "sign of eigenvolumes turned"),
        ("((identity + gram) / (deviation", "(gram / (deviation", "precision of latents without the prior"),
        (
            "(posterior.mean[:, :rank] * deviation).float()",
            "(posterior.mean[:, :rank] / deviation).float()",
            "latents divided by their deviation",
        ),
        ("            -posterior.objective,", "            posterior.objective,", "log-likelihood with the wrong sign"),
        ("(1 + spread * posterior.mean[:, -1])", "(1 - spread * posterior.mean[:, -1])", "contrast turned about one"),
        (
            "posterior.covariance[:, -1, -1] + missing)",
            "posterior.covariance[:, -1, -1])",
            "stated deviation of the contrast ignores the wider prior",
        ),
        (
            "gram = statistics.integrate_out(unfitted).gram",
            "gram = statistics.gram[:, :rank, :rank]",
            "precision of latents as if the contrast was known",
        ),
        ("torch.minimum(*gains)", "torch.maximum(*gains)", "gain of the half that gains more"),
    ),
    *_of(
        "tests/estimation/solver/test_half_sets.py",
        ("= with_spectra_of(factors, halves)", "= halves", "variance of half-sets that lack detail"),
        (
            "in_gauge_of_halves(full, halves) * problem.mask",
            "in_gauge_of_halves(full, halves)",
            "eigenvolumes not masked",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_heldout.py",
        ("1 / own - 1 / variances", "1 / own", "information of a coordinate counts its prior"),
        ("posterior.mean / own, inner", "posterior.mean * own, inner", "inner product multiplied by the variance"),
        ("return 0.5 * (weight.log()", "return (weight.log()", "gain twice too large"),
        (
            "weight.log() - weight * error**2",
            "-weight.log() - weight * error**2",
            "log-determinant with the wrong sign",
        ),
        (
            "(belongs * ((place - mean) ** 2 + spread))",
            "(belongs * (place - mean) ** 2)",
            "variance of few images without what each leaves open",
        ),
        ("((1 - belongs) * inner).sum", "(belongs * inner).sum", "coordinate of the others from the few"),
        (
            "(error * weight) ** 2 - information * weight)",
            "(error * weight) ** 2 - information)",
            "score of the variance without its weight",
        ),
        (
            ".diagonal(dim1=1, dim2=2) - known",
            ".diagonal(dim1=1, dim2=2) + known",
            "information beside the components added, not taken away",
        ),
        (
            "statistics.inner[:, rank:] - (cross @",
            "statistics.inner[:, rank:] + (cross @",
            "inner product beside the components with the wrong sign",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_nuisance.py",
        (
            "_share_in(torch.cat((mean[None], first)), eigenvolumes)",
            "_share_in(first, eigenvolumes)",
            "errors of contrast are no nuisance",
        ),
        ("[moved[number:] for number", "[moved[:0] for number", "nuisances of the first order only"),
        (
            "torch.minimum(of_second.clamp_min(0), allowed)",
            "of_second.clamp_min(0)",
            "second derivatives without errors of the first order",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_rank.py",
        (
            "mask * ft_to_volume(power * phases, box_size)",
            "ft_to_volume(power * phases, box_size)",
            "decoys leave the mask",
        ),
        ("decoys = decoys - mix(basis", "decoys = decoys + mix(basis", "decoys not orthogonal to the components"),
        ("axes.eigenvalues[kept])\n", "axes.eigenvalues[kept].sqrt())\n", "deviations in the place of variances"),
        (
            "torch.where(agreement < _LEAST_AGREEMENT, _STRANGERS_MARGIN, MARGIN)",
            "MARGIN",
            "small gains of components that do not agree",
        ),
        ("(gains - decoy_gains).amin(dim=0)", "(gains - decoy_gains).amax(dim=0)", "the better half decides"),
        (
            "gains[:, count:].amax(dim=1, keepdim=True)",
            "gains[:, count:].amin(dim=1, keepdim=True)",
            "the worst decoy is to be beaten, not the best",
        ),
        (
            "inner_products(axes, factors.volumes).norm(dim=1)",
            "inner_products(axes, factors.volumes).square().sum(dim=1)",
            "kept factors at their variance, not their deviation",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_outliers.py",
        ("(band.disk.weight * shown)", "(shown)", "signal power without Friedel weights"),
        ("slices[:, :, : 1 + len(factors)]", "slices[:, :, :1]", "signal power of the mean alone"),
        (
            "power[band.disk.shell] * batch.ctf.double().square()",
            "power[band.disk.shell] * batch.ctf.double().abs()",
            "power of an unknown structure by the transfer function, not its square",
        ),
        (
            "return 0.5 * ((observed / (1 + spread)",
            "return ((observed / (1 + spread)",
            "likelihood of an unknown structure without its half",
        ),
        (
            "torch.minimum(of_noise, of_other) - posterior",
            "torch.maximum(of_noise, of_other) - posterior",
            "the model against the less likely explanation",
        ),
        (
            "torch.minimum(posterior.objective - _PRIOR_LOG_ODDS, of_state)",
            "torch.minimum(posterior.objective, of_state - _PRIOR_LOG_ODDS)",
            "prior of the particle for rare states",
        ),
        (
            "2 * objective + torch.logdet(covariance)",
            "2 * objective - torch.logdet(covariance)",
            "distance with the determinant's wrong sign",
        ),
        (
            "centred = values[members] - values[members].median()",
            "centred = values[members] - values.median()",
            "distances compared over optics groups",
        ),
        (
            "contrast = 1 + band.contrast_variance**0.5 *",
            "contrast = 1 + band.contrast_variance *",
            "contrast of an image by the variance, not its root",
        ),
        (
            "deviation, group = torch.zeros_like(values), enlarged_groups(group)",
            "deviation = torch.zeros_like(values)",
            "medians of two images",
        ),
        ("(1 - 2 * PRIOR_SHARE) / PRIOR_SHARE", "PRIOR_SHARE / (1 - 2 * PRIOR_SHARE)", "prior odds turned over"),
    ),
    *_of(
        "tests/imaging/test_frames.py",
        (
            "pose.shift.double() - rotation.mT[:, :2] @ self.move",
            "pose.shift.double() + rotation.mT[:, :2] @ self.move",
            "poses move against the map",
        ),
        ("self.rotation.T @ handed(", "self.rotation @ handed(", "poses turn against the map"),
        (
            "+ frame.move.numpy() / pixel_size) @ matrix.T",
            "- frame.move.numpy() / pixel_size) @ matrix.T",
            "map moved against its frame",
        ),
        (
            "move = sign * turn.T @ own.double()",
            "move = turn.T @ own.double()",
            "centre of a mirrored map not mirrored",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_gain_beside_errors.py",
        (
            "mix(first, vectors * values.clamp_min(0).sqrt())",
            "mix(first, vectors * values.clamp_min(0))",
            "errors by their variance",
        ),
        ("scale[0] *= 0.5", "scale[0] *= 1.0", "second derivative along one error without its half"),
        (
            "left = statistics.integrate_out(range(rank,",
            "left = statistics.integrate_out(range(rank + 27,",
            "gain beside no errors",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_other_frames.py",
        ("changes = best[leader] - change > best", "changes = best[leader] > best", "changes of frame cost nothing"),
        ("self.of_image == number + 1", "self.of_image == number", "each image in the frame of another part"),
        (
            "other.move + (-move if other.is_mirrored else move)",
            "other.move + move",
            "first move not mirrored by a second frame",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_classes.py",
        (
            "asked, known = turn % 2, 1 - turn % 2",
            "asked, known = turn % 2, turn % 2",
            "images compared with what was made of them",
        ),
        (
            "options).unbind(dim=2)\n    return cross - 0.5 * power",
            "options).unbind(dim=2)\n    return cross - power",
            "resemblance with a wrong weight",
        ),
    ),
    *_of(
        "tests/jobs/fit/test_frames.py",
        ("after > as_one and 1 - after <", "after > as_one and 1 + after <", "frames that agree are refused"),
        (
            "return replace(job, inputs=inputs), source.with_pose(pose)",
            "return replace(job, inputs=inputs), source",
            "images are left at the poses of the list",
        ),
    ),
]

_MODEL = [
    *_of(
        "tests/estimation/judging/test_grey_scales.py tests/estimation/judging/test_signs.py",
        ("sign if sign is not None and is_first else found.scale", "found.scale", "first mean without the signs"),
        ("if not found.is_known or", "if False and", "signs not looked for where the mean vanishes"),
        (
            "known, asked = halves[turn % 2], halves[1 - turn % 2]",
            "known = asked = halves[turn % 2]",
            "signs by a mean of the same images",
        ),
        ("(inside - inside.median()) ** 3", "(inside - inside.median()).abs() ** 3", "any map taken for density"),
        ("(0.0, scale, spread)", "(mean, scale, spread)", "images without a signal taken for weak ones"),
        ("own, is_dark = cross / power,", "own, is_dark = cross / power.sqrt(),", "scale in units of its error"),
        (
            "sign = torch.where(is_turned, -usual, usual)[of_image]",
            "sign = torch.ones_like(power)",
            "turned parts taken for dark images",
        ),
        (
            "weight = ~is_dark / (1 / power + spread * centre.square())",
            "weight = ~is_dark * power",
            "spread of contrasts ignored in the error of a scale",
        ),
        ("is_reference[:] = True", "pass", "scales relative to a part of a few images"),
        ("& (weak > -_SURE * error)", "& (weak > -9.0)", "steps between signs"),
        (
            "if float(ratios.min()) > _LEAST_RATIO",
            "if float(ratios.max()) > _LEAST_RATIO",
            "small steps beside large ones",
        ),
        (
            "is_turned = usual * average < -_CLEAR * magnitude",
            "is_turned = usual * average < 0",
            "sign of a part of either sign by chance",
        ),
    ),
    *_of(
        "tests/estimation/judging/test_given_poses.py",
        ("enlarged_groups(group, _FEWEST_OTHERS)", "group", "poses of an image compared with themselves"),
        ("choice.flip(1)", "choice", "places judged by the pixels that chose them"),
        ("contrast * products[:, 0, 1] - 0.5", "products[:, 0, 1] - 0.5", "poses judged on the grey scale of others"),
    ),
    *_of(
        "tests/jobs/fit/test_first_mean.py",
        ("Pose(pose.rotation, pose.shift / factor)", "pose", "shifts in pixels of another size as they were"),
        ("defocus_v=ctf.defocus_v + change", "defocus_v=ctf.defocus_v - change", "astigmatism for another defocus"),
        ("first = int(total[: last + 1].argmin())", "first = 0", "rows of a doubt from the first one on"),
        ("if by < SIGNIFICANT * error", "if by < 0", "readings that may be as good not named"),
        (
            "return own - of_others > SIGNIFICANT * (error**2",
            "return own > SIGNIFICANT * (error**2",
            "one of two alike parts named alone",
        ),
    ),
    *_of(
        "tests/jobs/fit/test_families.py",
        ("(near < around)[kind]", "(near < 0)[kind]", "micrographs of one name taken for one"),
        ("np.maximum(_LEAST_SHARED, 0.5", "np.maximum(_LEAST_SHARED, 1.5", "micrographs of two names taken for two"),
    ),
    *_of(
        "tests/jobs/fit/test_first_mean.py",
        ("(common * (1 - near)).sum()", "(common * near).sum()", "density in the mask counted as beside it"),
        ("max(_NEAR_PX, _NEAR_ANGSTROM / pixel_size)", "0.0", "what a tight mask leaves out taken for another place"),
    ),
    *_of(
        "tests/data/test_pixel_faults.py",
        ("part, 1 / len(part)", "part, 1.0", "sum of the pixels beside instead of their average"),
        ("is_good = ~is_bad[rows]", "is_good = torch.ones_like(is_bad[rows])", "noise of images that are left out"),
        ("_SURE * _deviation(sharp[nearby])", "0", "fine structure of molecules taken for fixed pixels"),
        ("np.maximum(above, 0) + np.minimum(below, 0)", "np.maximum(above, 0)", "dead pixels not found"),
        ("value - around[:, -1 - _FEW] > limit", "value > limit", "beads taken for single pixels"),
    ),
    *_of(
        "tests/imaging/test_shells.py",
        ("own * power + (1 - own) * common", "(1 - own) * power + own * common", "common shape where it is known best"),
        ("common = level * shape", "common = shape", "levels of spectra lost"),
    ),
    *_of(
        "tests/estimation/solver/test_preconditioner.py tests/estimation/solver/test_mini_batches.py"
        " tests/estimation/solver/test_epochs.py",
        (
            "return torch.maximum(spectrum, smooth_ft.real)",
            "return torch.minimum(spectrum, smooth_ft.real)",
            "a spectrum lowered by the mask, not raised",
        ),
        (
            "fourier_crop_volume(mask, box_size).clamp(0, 1).sqrt()",
            "fourier_crop_volume(mask, box_size).clamp(0, 1)",
            "mask in the place of its root",
        ),
        ("volume_to_ft(mask_root).abs() ** 2", "volume_to_ft(mask_root).abs()", "autocorrelation without the square"),
        (
            "for part in shuffled.tensor_split(count)",
            "for part in index.tensor_split(count)",
            "mini-batches in the order of the file",
        ),
    ),
    *_of(
        "tests/estimation/model/test_contrast.py tests/estimation/model/test_expectation.py",
        (
            "inner.square() / share.square() - gram / share",
            "inner.square() / share - gram / share",
            "score of the contrast's variance with one weight too few",
        ),
        (
            "with_contrast_error(products, contrast, 1.0)",
            "with_contrast_error(products, contrast, 2.0)",
            "evidence of the contrast in twice its unit",
        ),
    ),
    *_of(
        "tests/estimation/model/test_expectation.py",
        (
            "of_mean = row + deviation * terms.moments[:, -1:]",
            "of_mean = row - deviation * terms.moments[:, -1:]",
            "gradient with the wrong sign of the error of the contrast",
        ),
        ("a**2 * of_nuisance, -a * row)", "a**2 * of_nuisance, -row)", "gradient of an image without its contrast"),
        (
            "torch.cat((a**2 * of_mean, a**2 * moments",
            "torch.cat((a * of_mean, a**2 * moments",
            "gradient of the mean with one contrast too few",
        ),
        (
            "moments[:, fitted:] + expected[:, :, None] * of_mean",
            "moments[:, fitted:]",
            "gradient where nuisance is not expected",
        ),
        (
            "slices[:, :, 0] += (slices[:, :, fitted:]",
            "slices[:, :, 0] -= (slices[:, :, fitted:]",
            "slice of the mean moved away from where nuisance is expected",
        ),
        (
            "information += terms.information.sum(dim=0)",
            "information += terms.second_moment.sum(dim=0)",
            "second moment in the place of the information",
        ),
    ),
    *_of(
        "tests/estimation/model/test_half_models.py",
        (
            "torch.cat((fitted.new_ones(len(batch), 1), fitted), dim=1) * batch.contrast[:, None]",
            "torch.cat((fitted.new_ones(len(batch), 1), fitted), dim=1)",
            "an image explained without its contrast",
        ),
        (
            "precision = (identity + statistics.gram) /",
            "precision = statistics.gram /",
            "precision of a half-set's latents without the prior",
        ),
        (
            "fitted = _least_squares(statistics).float()",
            "fitted = posterior.mean[:, :rank].float()",
            "what is taken away from images shrunk by the prior",
        ),
        (
            "posterior.mean[:, :rank] * deviation, precision",
            "posterior.mean[:, :rank], precision",
            "a half-set's latents not in the units of the components",
        ),
        ("replace(batch, ctf=batch.ctf * batch.contrast[:, None])", "batch", "scale of the mean without contrasts"),
        (
            "return mix(factors, coefficients)",
            "return mix(factors, inner_products(factors, eigenvolumes))",
            "projection onto factors as if they were orthonormal",
        ),
        ("self.mean + torch.tensordot(point", "self.mean - torch.tensordot(point", "a model at the opposite point"),
    ),
    *_of(
        "tests/estimation/model/test_latent_moments.py",
        ("total[i, j] += mean[i] * mean[j]", "total[i, j] -= mean[i] * mean[j]", "second moment less that of the mean"),
        ("value = 1.0 if i == j else 0.0", "value = 0.5 if i == j else 0.0", "prior of the latents twice too wide"),
        ("half[i, j] = root[j, i]", "half[i, j] = root[i, j]", "root of the covariance transposed"),
    ),
    *_of(
        "tests/estimation/model/test_objectives.py",
        ("- torch.logdet(precision)", "+ torch.logdet(precision)", "prior's determinant with the wrong sign"),
        (
            "(log_determinant + statistics.residual - explained)",
            "(log_determinant + statistics.residual + explained)",
            "what is explained added to the objective",
        ),
        (
            "return self.covariance + self.mean[:, :, None]",
            "return self.mean[:, :, None]",
            "second moment without the covariance",
        ),
        (
            "image = residual.square() - 2 * residual",
            "image = residual.square() - residual",
            "least squares without a factor 2 of the noise",
        ),
        (
            "moments = (gram + _identity_like(gram))[:, :, :rank]",
            "moments = gram[:, :, :rank]",
            "gradient of least squares without the noise",
        ),
        (
            "gram.square().sum(dim=(-2, -1)) + 2 * trace",
            "gram.square().sum(dim=(-2, -1)) + trace",
            "least squares with half of the trace",
        ),
        (
            "outer = mean[:, :, None] * mean[:, None, :]",
            "outer = moments[:, :rank, :rank]",
            "images that would know their latents",
        ),
        (
            "statistics.gram[:, rank:, :rank] @ second",
            "statistics.gram[:, rank:, :rank] @ mean[..., None]",
            "contrast beside latents of a mixture as if these were known",
        ),
        (
            "value = 0.5 * of_factors.residual - posterior",
            "value = 0.5 * statistics.residual - posterior",
            "likelihood of a mixture without what the contrast explains",
        ),
        ("share.clamp(_LEAST_SHARE, 1.0)", "share.clamp(0.0, 1.0)", "steps by a curvature that may vanish"),
        (
            "return 2 * information + _identity_like",
            "return information + _identity_like",
            "curvature of least squares halved",
        ),
    ),
    *_of(
        "tests/estimation/model/test_mixture.py",
        ("evidence[n] = largest + np.log(norm)", "evidence[n] = largest", "evidence of the likeliest Gaussian alone"),
        (
            "(covariance[kind, i, j] + places[k, i] * places[k, j])",
            "covariance[kind, i, j]",
            "second moments about the means of Gaussians",
        ),
        (
            "weights.log() + 0.5 * torch.logdet(precision)",
            "weights.log() - 0.5 * torch.logdet(precision)",
            "evidence of a Gaussian with the determinant's wrong sign",
        ),
        ("means, found.outer - (about_zero", "means, found.outer + (about_zero", "covariances of Gaussians about zero"),
        ("_SPLIT * (values[:, -1]", "_SPLIT * (values[:, 0]", "Gaussians split by their least deviation"),
    ),
    *_of(
        "tests/jobs/fit/test_density.py",
        ("* precision * deviation - identity", "* precision * deviation", "what images know with the prior counted in"),
        ("(found.mean * scale).float()", "found.mean.float()", "places by the density not in the units of components"),
    ),
    *_of(
        "tests/estimation/model/test_residuals.py",
        (
            "torch.cat((slices[:, :, 1:], deviation * slices[:, :, :1]), dim=2)",
            "torch.cat((slices[:, :, 1:], slices[:, :, :1]), dim=2)",
            "residuals with contrasts of deviation one",
        ),
        (
            "(batch.images - explained).abs() ** 2 + (spread.abs() ** 2).sum(dim=-1)",
            "(batch.images - explained).abs() ** 2",
            "noise from plain residuals",
        ),
        ("noise_variance * power / kept", "noise_variance * power", "noise too low where a group sees part of a shell"),
        ("loadings = contrast * torch.cat", "loadings = torch.cat", "residuals of factors without the contrast"),
    ),
    *_of(
        "tests/estimation/model/test_objectives.py tests/estimation/model/test_expectation.py",
        (
            "products[:, -1, -1] - 2 * a * products[:, 0, -1]",
            "products[:, -1, -1] - a * products[:, 0, -1]",
            "residual without a factor 2",
        ),
        (
            "(products[:, columns, -1] - a[:, None] * products[:, columns, 0])",
            "(products[:, columns, -1] - products[:, columns, 0])",
            "inner products with the mean at contrast one",
        ),
        (
            "keep] - cross.transpose(1, 2) @ cross",
            "keep] + cross.transpose(1, 2) @ cross",
            "marginalised columns add information",
        ),
        (
            "inner.square().sum(dim=(1, 2)) + log_determinant",
            "inner.square().sum(dim=(1, 2)) - log_determinant",
            "marginal likelihood with the determinant's wrong sign",
        ),
        ("@ moved[:, columns, :])[:, 0]", "@ products[:, columns, :])[:, 0]", "expected nuisance without its square"),
    ),
]

_POSES = [
    *_of(
        "tests/estimation/poses/test_uncertainty.py tests/estimation/judging/test_nuisance.py",
        (
            "self.move_px * mean.shape[-1] / full_box_size",
            "self.move_px * full_box_size / mean.shape[-1]",
            "spread of shifts scaled to a larger box",
        ),
        (
            "given.rotation.double() @ present.rotation.double().mT",
            "present.rotation.double() @ given.rotation.double().mT",
            "expected errors of orientations with the wrong sign",
        ),
        (
            "torch.cat((move / spread.move_px, turn / spread.turn_rad), dim=1)",
            "torch.cat((turn / spread.turn_rad, move / spread.move_px), dim=1)",
            "turns and moves swapped",
        ),
        (
            "float(variance[:3].mean()) ** 0.5, float(variance[3:].mean()) ** 0.5",
            "float(variance[3:].mean()) ** 0.5, float(variance[:3].mean()) ** 0.5",
            "spreads of turns and moves swapped",
        ),
        (
            "present.rotation.double()[:, :, :2] @",
            "present.rotation.double().mT[:, :, :2] @",
            "shift carried to the frame of the map by the transposed rotation",
        ),
    ),
    *_of(
        "tests/estimation/poses/test_uncertainty.py tests/estimation/poses/test_refinement.py",
        (
            "latent_posterior(Statistics.with_contrast_error(products, batch.contrast, self._deviation))",
            "latent_posterior(Statistics.with_contrast_error(products, batch.contrast, self._deviation / 2))",
            "likelihood of a pose with half of the contrast's deviation",
        ),
        ("mixed.to(kind)", "coefficients.to(kind)", "slices weighted as if the mean came last"),
        ("gradient[:, :3] += turn", "gradient[:, :3] -= turn", "determinant's derivative with the wrong sign"),
        (
            "products[:, :, channels:-1] - coupling @ loadings.mT",
            "products[:, :, channels:-1]",
            "latents not integrated out of the matrix of poses",
        ),
        (
            "self.latent_covariance - self.coupling.mT @ cross",
            "self.latent_covariance + self.coupling.mT @ cross",
            "uncertain poses make latents more certain",
        ),
        (
            "error = products[:, :, -1] - contrast * products[:, :, 0]",
            "error = products[:, :, -1] - products[:, :, 0]",
            "error of an image as if its contrast was one",
        ),
        ("coefficients[:, -1:] += contrast", "coefficients[:, -1:] += 1", "derivative of the mean at contrast one"),
        (
            "rotation_to_rotvec(self.rotation.mT @ rotation)",
            "rotation_to_rotvec(rotation.mT @ self.rotation)",
            "prior pushes orientations away",
        ),
        ("shift_px - self.shift_px), dim=1)", "shift_px + self.shift_px), dim=1)", "prior of shifts on the other side"),
        ("[spread.turn_rad**-2] * 3", "[spread.turn_rad**-1] * 3", "prior precision by deviation, not variance"),
        ("return 0.5 * self._offset", "return self._offset", "prior of poses twice too strong"),
        (
            "rotation[rows] @ rotvec_to_rotation(step[:, :3])",
            "rotvec_to_rotation(step[:, :3]) @ rotation[rows]",
            "turns in the frame of the map, not the image",
        ),
        (
            "value = posterior.objective + prior[rows].objective(turned, moved)",
            "value = posterior.objective",
            "steps accepted without the prior",
        ),
        ("step = -torch.linalg.solve(damped(matrix", "step = torch.linalg.solve(damped(matrix", "steps uphill"),
        ("rotvec_to_rotation(-_RATE_RAD * mean", "rotvec_to_rotation(_RATE_RAD * mean", "descent uphill"),
    ),
]

_SOLVER = [
    *_of(
        "tests/estimation/solver/test_epochs.py",
        ("share = index.shape[0] / expectation.count", "share = 1.0", "gradient of a mini-batch taken for that of all"),
        ("step = mask_root * ft_to_volume(", "step = ft_to_volume(", "steps leave the mask"),
        (
            "/ preconditioner.bound(spectrum), vectors.T)",
            "/ preconditioner.bound(spectrum), vectors)",
            "steps mixed back by the transposed basis",
        ),
        ("(gradient + pulled)", "(gradient - pulled)", "prior with the wrong sign"),
        (".float().rsqrt(), box_size)", ".float(), box_size)", "random start by the precision, not the deviation"),
    ),
    *_of(
        "tests/estimation/solver/test_half_sets.py",
        (
            "problem.band(shell_max), problem.preconditioner(shell_max, 0.5)",
            "problem.band(shell_max), problem.preconditioner(shell_max, 1.0)",
            "half-sets weighted by the density of all images",
        ),
        (
            "of_half = problem.preconditioner(shell_max, 0.5)",
            "of_half = problem.preconditioner(shell_max, 1.0)",
            "prior of all images by their density",
        ),
        (
            "extend_shells(starting_precision(band), shells)[known:]",
            "0 * extend_shells(starting_precision(band), shells)[known:]",
            "no prior beyond the measured shells",
        ),
        (
            "factor_precision(trusted, density)",
            "factor_precision(correlation[:, :known], density)",
            "prior of what half-sets have hardly found yet",
        ),
        ("1.0 / (_START_SHARE * power)", "1.0 / (power)", "random start as strong as the mean"),
        (
            "average = 0.5 * (first.volumes + second.volumes)",
            "average = first.volumes + second.volumes",
            "all images start from the sum of the halves",
        ),
        (
            "index = torch.cat(problem.halves)",
            "index = torch.cat(problem.halves[:1])",
            "fit of all images sees one half-set",
        ),
    ),
    *_of(
        "tests/estimation/solver/test_gauge.py",
        (
            "values.clamp_min(1e-12).sqrt() @ vectors.T",
            "values.clamp_min(1e-12) @ vectors.T",
            "gauge by the second moment, not its root",
        ),
        ("mix(factors2, right.T)", "mix(factors2, right)", "second half aligned by the transposed rotation"),
    ),
    *_of(
        "tests/estimation/solver/test_agreement.py",
        (
            "cross / (power1 * power2).clamp_min(1e-300).sqrt()",
            "cross / (power1 * power2).clamp_min(1e-300)",
            "component correlation without the root",
        ),
        (
            "inner(second, second)).clamp_min(1e-300).sqrt()",
            "inner(second, second)).clamp_min(1e-300)",
            "covariance correlation without the root",
        ),
        ("cross, power1, power2 = cross @ pool.T, power1 @ pool.T, power2 @ pool.T\n", "\n", "small shells not pooled"),
    ),
    *_of(
        "tests/estimation/model/test_penalties.py tests/estimation/solver/test_priors.py",
        (
            "_shell_fields(2 * mixed, self._box_size)",
            "_shell_fields(mixed, self._box_size)",
            "curvature of the weighted prior halved",
        ),
        ("self._root * mix(self._root * factors_ft", "mix(self._root * factors_ft", "weighted prior with one root"),
        ("(1 - share)[:, None] * best", "share[:, None] * best", "components that were hardly found trusted least"),
        ("weight = coefficients.to(own) * best", "weight = best", "agreement averaged over shells, not coefficients"),
    ),
]

_RECONSTRUCTION = [
    *_of(
        "tests/reconstruction/test_kernel_blending.py tests/reconstruction/test_kernel_regression.py",
        ("(correlation - chance).clamp(0, 1)", "correlation.clamp(0, 1)", "chance correlation not subtracted"),
        ("return 2 * certain / (1 + certain)", "return certain", "gain of one half for that of the average"),
        ("shares *= 1 - gain", "shares *= 1", "shares of kernels do not add up to one"),
        (
            "windows.analyse((narrower - wider) * mask)",
            "windows.analyse(narrower - wider)",
            "detail added outside the mask",
        ),
        (
            "_INDEPENDENT * coefficients_per_shell(windows.size,",
            "2 * coefficients_per_shell(windows.size,",
            "chance as if coefficients of windows were independent",
        ),
    ),
    *_of(
        "tests/reconstruction/test_kernel_regression.py",
        (
            "torch.tril(1 - average / squared[:, None])",
            "torch.tril(1 - (average / squared[:, None]).sqrt())",
            "triangular kernel",
        ),
        (
            "power = (disk.weight * ctf * ctf * batch",
            "power = (disk.weight * ctf * batch",
            "transfer function not squared",
        ),
        (
            "image = batch.images * (disk.weight * ctf)",
            "image = batch.images * ctf",
            "images back-projected without Friedel weights",
        ),
        ("1 - 0.75 * relative + relative**3 / 16", "1 - 0.5 * relative", "autocorrelation of a ball as a cone"),
        ("offset + levelled_estimate(", "offset - levelled_estimate(", "what images add is taken away"),
        (
            "(weight * shells_to_volume((1.0 / gain).float(), box_size))",
            "weight",
            "shells shrunk twice, by the estimate and the filter",
        ),
        ("volume_to_ft(image * ball)", "volume_to_ft(image)", "sums not confined to the ball"),
    ),
    *_of(
        "tests/reconstruction/test_mean.py",
        ("radial_average(0.5 * both.density()", "radial_average(both.density()", "prior of the mean twice too strong"),
        ("* (1 - clamped) / clamped", "* clamped / (1 - clamped)", "Wiener filter turned over"),
        (
            "shells_to_volume(correlation.clamp(0, 1).float(), box_size)",
            "shells_to_volume(torch.ones_like(correlation).float(), box_size)",
            "half-maps for refinement unfiltered",
        ),
    ),
    *_of(
        "tests/reconstruction/test_normal_equations.py",
        ("sums.kernel() * (_OVERSAMPLING / box_size)", "sums.kernel() * (1 / box_size)", "operator without a factor 2"),
        ("weighted = disk.weight * ctf", "weighted = ctf", "normal equations without Friedel weights"),
        ("volume_to_ft(response).real * box_size", "volume_to_ft(response).real", "density in other units"),
        ("pulled = ft_to_volume(precision *", "pulled = ft_to_volume(0 * precision *", "solution without its prior"),
        ("self.kernel_ft + other.kernel_ft", "self.kernel_ft", "sum of two sets with the operator of one"),
        (
            "resize_volume_ft(density, box_size, new_size) * (new_size / box_size)",
            "resize_volume_ft(density, box_size, new_size) * (box_size / new_size)",
            "density of a smaller box too large",
        ),
        (
            "conjugate = direction + (new_energy / energy)",
            "conjugate = direction - (new_energy / energy)",
            "directions of the solver not conjugate",
        ),
    ),
    *_of(
        "tests/reconstruction/test_sharpening.py",
        ("GuinierFit(4 * float(slope)", "GuinierFit(2 * float(slope)", "B-factor halved"),
        ("torch.exp(-0.25 * b_factor", "torch.exp(0.25 * b_factor", "sharpening blurs"),
        ("np.sqrt(2 * known / (1 + known))", "(2 * known / (1 + known))", "amplitudes weighted by power"),
    ),
    *_of(
        "tests/reconstruction/test_windows.py",
        (
            "(products * hermitian_weight(self.size, products.device))",
            "(products)",
            "local spectra without Hermitian weights",
        ),
        (
            "torch.sin(torch.pi * position).to",
            "torch.sin(torch.pi * position).square().to",
            "squares of windows as windows",
        ),
        ("device=like.device) + 0.5) / self.size", "device=like.device)) / self.size", "windows half a voxel off"),
        (
            "0.25 * padded[..., :-2] + 0.5 * values + 0.25 * padded[..., 2:]",
            "0.5 * padded[..., :-2] + 0.5 * values",
            "shells blended to one side",
        ),
        ("sum(dim=(1, 2, 3)) / profile.sum()", "sum(dim=(1, 2, 3)) / profile.numel()", "share of a mask too small"),
        (
            "torch.cat((values, values[:, -1:]), dim=1)[:, self._shell_index(",
            "torch.cat((values, 0 * values[:, -1:]), dim=1)[:, self._shell_index(",
            "coefficients beyond the last shell filtered away",
        ),
    ),
    *_of(
        "tests/reconstruction/test_filtering.py",
        ("gain = (2 * positive / (1 + positive))", "gain = positive", "filter of one half for the average"),
        (
            "corrected = (masked - random) / (1 - random)",
            "corrected = masked",
            "correlation not corrected for the mask",
        ),
        ("        windows.smooth_places(sums)\n", "        sums\n", "local correlation of single windows"),
        (
            "torch.where(is_random, spectrum.abs() * phases, spectrum)",
            "torch.where(is_random, phases, spectrum)",
            "randomised phases without amplitudes",
        ),
        ("outside=max(found))", "outside=min(found))", "best resolution where there are no windows"),
        (
            "masked[: first + 2], corrected[first + 2 :]",
            "masked[:first], corrected[first:]",
            "correction where the mask mixes kept coefficients",
        ),
    ),
]

_DATA = [
    *_of(
        "tests/estimation/model/test_slices.py",
        (
            "kept[:, : lost.shape[1]] *= 1 - lost",
            "kept[:, : lost.shape[1]] *= 1 + lost",
            "noise that backgrounds would add",
        ),
        ("ctf * ctf * batch.kept_variance())", "ctf * ctf)", "kernel volumes too weak where backgrounds were removed"),
    ),
    *_of(
        "tests/data/test_stream.py",
        (
            "images / (whitening * self.image_scale[index, None].to(whitening.device))",
            "images / whitening",
            "subtraction that ignores an image's scale",
        ),
        (
            "images * (whitening * self.image_scale[rows, None].to(device))",
            "images * whitening",
            "images without their scale",
        ),
        (
            "(self.pose.shift[rows] - self.centring[rows])",
            "(self.centring[rows] - self.pose.shift[rows])",
            "refined shifts with the wrong sign",
        ),
        ("Batch(images, ctf * self.sign,", "Batch(images, ctf,", "sign of the contrast lost"),
        ("disk, self.pixel_size) * whitening", "disk, self.pixel_size)", "transfer function not whitened"),
        ("torch.where(scale < 0, -self.image_scale, self.image_scale)", "self.image_scale", "images are not turned"),
        ("contrast = contrast * self.grey_scale[rows].to(device)", "pass", "scale of the signal not used"),
        ("        return replace(self, contrast=contrast.float())", "        return self", "known contrasts not used"),
    ),
    *_of(
        "tests/data/test_noise.py",
        (
            ".abs().double() ** 2 / float(background.mean())",
            ".abs().double() ** 2",
            "noise of the background's pixels for that of all",
        ),
        (
            "torch.maximum(repaired[..., :first], level)",
            "repaired[..., :first]",
            "noise of the lowest shells as low as flattening makes it",
        ),
        ("shell, values.double() * weight)", "shell, values.double())", "shell averages without Friedel weights"),
        ("        return median / deviation", "        return deviation / median", "normalisation turned over"),
        (
            "(inside / outside.clamp_min(1e-300)).sqrt()",
            "inside / outside.clamp_min(1e-300)",
            "noise within over that outside as variances",
        ),
        ("return differs if are_usual else", "return differs if True else", "signal taken for a replaced background"),
    ),
    *_of(
        "tests/data/test_preprocess.py",
        ("deviation = deviation * inner", "deviation = deviation / inner", "scaled by a background that was replaced"),
        ("spectra, scale * inner, is_bad", "spectra, scale, is_bad", "noise of backgrounds that were replaced"),
    ),
    *_of(
        "tests/data/test_copies.py",
        ("positive[:, 1:] == positive[:, :1]", "positive[:, 1:]", "copies of the other sign have another hash"),
        (
            'np.abs(np.einsum("nk,nk->n", one, other))',
            'np.einsum("nk,nk->n", one, other)',
            "copies of the other sign are not alike",
        ),
        (
            "phases = values / values.abs().clamp_min(1e-30)",
            "phases = values",
            "signatures of the strongest frequencies",
        ),
    ),
    *_of(
        "tests/imaging/test_aberrations.py",
        (
            "factors.conj().to(coefficients.dtype)",
            "factors.to(coefficients.dtype)",
            "odd aberrations doubled instead of taken back",
        ),
        (
            "torch.linalg.solve(magnification.mT, shift",
            "torch.linalg.solve(magnification, shift",
            "origins by the matrix instead of its transpose",
        ),
        (
            "matrix = frequency_ratio * torch.linalg.inv(self.magnification[group])",
            "matrix = frequency_ratio * self.magnification[group]",
            "images distorted twice",
        ),
        ("tilt_mrad.flip(1)", "tilt_mrad", "beam tilt with its axes exchanged"),
    ),
    *_of(
        "tests/data/test_microscope.py",
        ("(coefficients, -ctf.even_zernike)", "(coefficients, ctf.even_zernike)", "even aberrations turned in sign"),
        ("own @ magnification.to(own).T", "own", "premultiplied images divided by the CTF of undistorted ones"),
        (
            "kept = (self.ctf != 0).to(self.ctf.dtype)",
            "kept = torch.ones_like(self.ctf)",
            "noise expected where nothing is left of premultiplied images",
        ),
        (
            "power / _seen_share(stack.ctf[rows[members]], disk, extent)",
            "power",
            "noise of premultiplied images too low by what was left out",
        ),
    ),
    *_of(
        "tests/data/test_symmetry.py",
        (
            "(operators[None] @ stack.pose.rotation.double()[:, None])",
            "(stack.pose.rotation.double()[:, None] @ operators[None])",
            "symmetry about the axes of the image",
        ),
        ("known.pose.shift[index]", "-known.pose.shift[index]", "shifts of other orientations turned over"),
        (
            "            return self.place[rows]",
            "            return rows % len(self.coefficients)",
            "coefficients of other images",
        ),
        (
            "np.column_stack([names, self.group, self.pose.shift, ctf])",
            "np.column_stack([names, self.group, ctf])",
            "one centre for rows of an image that have several",
        ),
        (
            "        table[own] = table[read][place_of_own]",
            "        pass",
            "rows of an image without what is known of it",
        ),
    ),
    *_of(
        "tests/imaging/test_symmetry.py",
        (
            "float(power[kept][_distance_inside",
            "-float(power[kept][_distance_inside",
            "asymmetric unit cut through most of the density",
        ),
        ("torch.minimum(distance, place @", "torch.maximum(-distance, place @", "asymmetric unit of one plane only"),
    ),
    *_of(
        "tests/imaging/test_background.py",
        (
            "self.columns * weight[:first, None]).mH",
            "self.columns).mH",
            "backgrounds projected without Friedel weights",
        ),
    ),
    *_of(
        "tests/data/test_preprocess.py",
        ("centred = centred * ratio**2", "centred = centred * 1", "coarser pixels not counted for more"),
        ("disk).cpu() * ratio**4", "disk).cpu() * ratio**2", "noise of coarser pixels by amplitude"),
        (
            "shift_px = stack.pose.shift[rows[members]]",
            "shift_px = -stack.pose.shift[rows[members]]",
            "images moved away from their centres",
        ),
        ("scale[rows, None].double() ** 2", "scale[rows, None].double()", "noise scaled by amplitude"),
        (
            "stack.pixel_size * stack.box_size / box_size",
            "stack.pixel_size * box_size / stack.box_size",
            "pixel size of the working box turned over",
        ),
        (
            "flat[rows] = images[rows] - torch.einsum",
            "flat[rows] = images[rows] + torch.einsum",
            "background added instead of taken away",
        ),
    ),
    *_of(
        "tests/data/test_units_of_parts.py",
        ("len(found) > _MORE * beside", "len(found) > len(magnitude)", "units of parts not looked at"),
        ("_are_like(10 * defocus[part]", "_are_like(defocus[part]", "tenths taken for equals"),
        ("np.delete(values, rows)", "values[rows]", "right values told as those of another unit"),
        ("magnified, known[0], choice", "known[0], known[0], choice", "magnification compared with nothing"),
    ),
    *_of(
        "tests/jobs/states/test_images_of_the_fit.py",
        ("gain + spread < WEAK * of_fit", "gain + spread < -of_fit", "images of others are never refused"),
        ("(error**2 + (WEAK * of_fit_error) ** 2) ** 0.5", "error", "the fit's own error not counted"),
    ),
    *_of(
        "tests/jobs/fit/test_first_mean.py",
        ("share * float(evidence.signal.mean())", "share * 100.0", "noise proves foreign poses"),
    ),
    *_of(
        "tests/jobs/test_run_analyze.py",
        ("labels[~self.is_outlier] = clusters.labels", "labels[:] = 0", "outliers in clusters"),
    ),
    *_of(
        "tests/data/test_particles.py",
        ("detector * 1e4 / magnification", "detector * 1e3 / magnification", "pixel size of old files"),
        ("(shift / pixel_size[:, None])", "(shift * pixel_size[:, None])", "shifts written in the wrong unit"),
        ("return order[place]", "return place", "optics groups in the order of their numbers, not of the table"),
        ("torch.from_numpy(flipped != 0)", "torch.from_numpy(flipped == 0)", "phase-flipping turned over"),
        ("image[row] = int(number) - 1 if at", "image[row] = int(number) if at", "the next image"),
        (
            "offset = header.data_offset + first * header.section_bytes",
            "offset = 1024 + first * header.section_bytes",
            "extended header read as images",
        ),
    ),
    *_of(
        "tests/data/test_cryosparc.py",
        (
            'Rotation.from_rotvec(values("pose", 2))',
            'Rotation.from_rotvec(-values("pose", 2))',
            "poses of cryoSPARC turned back",
        ),
        ("(found.shift / pixel[:, None])", "(found.shift * pixel[:, None])", "shifts for cryoSPARC in square Angstrom"),
        (" + np.eye(2).reshape(-1)", "", "magnification of cryoSPARC without the identity"),
        (
            "zip(shares, (1, 0), strict=True)",
            "zip(shares, (0, 1), strict=True)",
            "width and height of cryoSPARC's micrographs exchanged",
        ),
        ("other[name][order[place]]", "other[name][place]", "what was passed through in another order"),
        ("* known.mean(dtype=np.float64)", "", "scales for cryoSPARC not on their average"),
        ("posterior.argmax(axis=1)", "posterior.argmin(axis=1)", "poses of the least probable class"),
        ("if dtype.hasobject:", "if False:", "pickled objects not refused"),
    ),
    *_of(
        "tests/data/test_volumes.py tests/data/test_mrc.py",
        ("for axis in (3, 2, 1)]", "for axis in (1, 2, 3)]", "maps with z and x swapped"),
        ('HEADER_BYTES + int(header["extended_bytes"])', "HEADER_BYTES", "extended header read as values"),
    ),
]

_ALTERNATION = [
    *_of(
        "tests/estimation/alternation/test_images.py",
        (
            "zip(halves, reversed(state.factors), strict=True)",
            "zip(halves, state.factors, strict=True)",
            "halves judged by their own factors",
        ),
        ("index[~outlier[index]])\n        for rows", "index)\n        for rows", "outliers count for the noise"),
        ("contrast = contrast * source.contrast.cpu()", "pass", "contrast of an image without the one that is known"),
        (
            "is_doubted = share > _MOST_OUTLIERS",
            "is_doubted = share > 1",
            "all images left out where the model is in doubt",
        ),
    ),
    *_of(
        "tests/estimation/alternation/test_refined_poses.py tests/estimation/alternation/test_pose_rounds.py",
        (
            "states = found.states if this.is_last else",
            "states = found.states if not this.is_last else",
            "uncertainty of the frame in the wrong rounds",
        ),
        (
            "index, of_half = this.halves[half], state.factors[half]",
            "index, of_half = this.halves[half], state.factors[1 - half]",
            "poses refined under the factors of the other half",
        ),
        ("pose.shift[index] + found.moved", "pose.shift[index] - found.moved", "refined shifts taken away, not added"),
    ),
    *_of(
        "tests/test_distributed.py",
        (
            "self._sent(found, half * self.size // 2)",
            "self._sent(found, 0 * self.size // 2)",
            "what the first team found taken for that of both half-sets",
        ),
        (
            "first = 0 if world.team is None else number * members",
            "first = 0 if world.team is None else 0 * members",
            "images of both half-sets with the first team",
        ),
    ),
    *_of(
        "tests/estimation/alternation/test_iteration.py",
        (
            "is_last=number == len(problem.rounds)",
            "is_last=number != len(problem.rounds)",
            "last refinement of poses taken for an earlier one",
        ),
    ),
]

_JOBS = [
    *_of(
        "tests/jobs/fit/test_results.py",
        ("return left + float((known / known.mean()).var())", "return left", "spread of known contrasts left out"),
    ),
    *_of(
        "tests/jobs/states/test_kernel_problem.py",
        (
            "volume_to_ft(read_volume(path).data) * gain",
            "volume_to_ft(read_volume(path).data)",
            "half means unfiltered",
        ),
        (
            "zip(rows, models, strict=True)",
            "zip(rows, models[::-1], strict=True)",
            "images relieved by the model of the other half",
        ),
        (
            "scale * _half_components(run, space, half)",
            "_half_components(run, space, half)",
            "components not at the scale of the images",
        ),
    ),
]

_PROJECTORS = [
    *_of(
        "tests/projectors/test_triton_gpu.py",
        (
            "tl.where((lane & 1)[None, :] == 1, sign",
            "tl.where((lane & 1)[None, :] == 0, sign",
            "real parts of Friedel mates change sign on a GPU",
        ),
        (
            "tl.dot(tl.trans(share * real), real, input",
            "tl.dot(tl.trans(real), real, input",
            "Gram matrices on a GPU without Hermitian weights",
        ),
        (
            "            total += sums.to(tl.float64)",
            "            total = sums.to(tl.float64)",
            "Gram matrices on a GPU of the last tile only",
        ),
        ("* (scale * sign)[:, None]", "* scale[:, None]", "combinations of Friedel mates not conjugated on a GPU"),
        (
            "mask=inside, other=0.0) * tl.load(weight + pixel",
            "mask=inside, other=0.0) + 0 * tl.load(weight + pixel",
            "combinations on a GPU without Hermitian weights",
        ),
        (
            "tl.atomic_add(cells + step, weight[:, None] * values",
            "tl.atomic_add(cells + step, values",
            "all corners of a cell get a slice's whole value on a GPU",
        ),
        (
            "size = sign * share * scale * scale",
            "size = sign * share * scale",
            "derivative of the energy on a GPU with a single transfer function",
        ),
        (
            "-phase_x * mixed_imaginary,",
            "phase_x * mixed_imaginary,",
            "derivative by the shift with one sign turned on a GPU",
        ),
        (
            "real_moment * real_y + imaginary_moment * im",
            "real_moment * real_y - imaginary_moment * im",
            "derivative of the energy on a GPU without conjugation",
        ),
        ("(in_z * in_x * (2 *", "(in_z * in_y * (2 *", "slopes along y on a GPU with weights along y"),
        (
            "            turning * real_1,",
            "            scale * real_1,",
            "slopes at Friedel mates with the wrong sign on a GPU",
        ),
    ),
]

_ABINITIO = [
    *_of(
        "tests/estimation/test_pose_scores.py",
        (
            "phases = shift_phases(self.disk, self.shift_px",
            "phases = shift_phases(self.disk, -self.shift_px",
            "images of a search moved the other way",
        ),
        ("return self.disk.weight / self.noise", "return 1 / self.noise", "scores of poses without Friedel mates"),
        ("(ctf.square() @ (weight", "(ctf @ (weight", "norms of scores with a single transfer function"),
        ("power = of_slices.T @ ctf.square()", "power = of_slices.T @ ctf", "posterior sums of C, not of its square"),
        (
            "- 2 * (slices.conj() * summed).real",
            "- (slices.conj() * summed).real",
            "residuals with half of the cross term",
        ),
        ("return (images * ctf)[:, None]", "return images[:, None]", "scores of images without transfer functions"),
        ("least_trace = 1 + 2 * math.cos", "least_trace = 2 * math.cos", "modes of a search too far from each other"),
    ),
    *_of(
        "tests/imaging/test_so3_grid.py",
        ("(1 - step / count).sqrt()", "(1 - step / count)", "quaternions of the grid that are not of length one"),
        (
            "trace[:, 0] >= trace.max(dim=1).values - 1e-12",
            "trace[:, 0] >= trace.mean(dim=1)",
            "fundamental domain that is too large",
        ),
    ),
    *_of(
        "tests/imaging/test_symmetry.py",
        ("angle = math.atan(1 / _GOLDEN) * (-1 if", "angle = math.atan(1 / _GOLDEN) * (1 if", "I3 and I4 swapped"),
    ),
    *_of(
        "tests/abinitio/test_structure.py",
        ("else flipped.roll((1, 1, 1), (-3, -2, -1))", "else flipped", "mirrored map a voxel off"),
        (
            "-fit.pose.shift.double() / source.pixel_size, precision)",
            "10 + fit.pose.shift.double() / source.pixel_size, precision)",
            "prior of shifts away from the centre",
        ),
    ),
    *_of(
        "tests/abinitio/test_search.py",
        (
            "mean > max(_LEAST_GAIN, _SIGNIFICANT * error)",
            "mean > _SIGNIFICANT * error",
            "any sure gain is a structure",
        ),
        (
            "angle = half * centre[0] + frequency[:, None] * centre[1]",
            "angle = half * centre[1] + frequency[:, None] * centre[0]",
            "maps centred along the wrong axes",
        ),
    ),
]

_STOCHASTIC_DESCENT = [
    *_of(
        "tests/abinitio/sgd/test_likelihood.py",
        ("_outer_sum([w[s.index] for w,", "_outer_sum([0 * w[s.index] for w,", "poses without weights"),
        (
            "shift_phases(disk, quadrature.shift_px.to(weight)",
            "shift_phases(disk, -quadrature.shift_px.to(weight)",
            "images moved away from the centre, not to it",
        ),
        ("residual = mass * slices - torch", "residual = mass * slices - 2 * torch", "gradient with images twice"),
        (
            "share = slices[:, :, None] / len(operators)",
            "share = slices[:, :, None]",
            "gradient of every copy that a symmetry makes",
        ),
        ("error[numbers] = 2 * (half_norm", "error[numbers] = (half_norm", "half the squared error"),
    ),
    *_of(
        "tests/abinitio/sgd/test_importance.py",
        (
            "(1 - alpha) * smooth / smooth.sum() + alpha / len",
            "alpha * smooth / smooth.sum() + (1 - alpha) / len",
            "uniform share and the rest exchanged",
        ),
        (
            "(count / (number * distribution[index])).log()",
            "(count / number).log() + 0 * distribution[index]",
            "draws not divided by their probability",
        ),
        (
            ".double().log() - factor.log_factor).log_softmax",
            ".double().log()).log_softmax",
            "marginals counted as often as they were drawn",
        ),
        ("marginal[seen].pow(exponent)", "marginal[seen]", "no annealing"),
        (
            "torch.cdist(before.shift_px, now.shift_px).square() / (-2 *",
            "torch.cdist(before.shift_px, now.shift_px).square() / (-1 *",
            "narrow kernel of shifts",
        ),
        ("(1 + z)\n", "(1 - z)\n", "frames of views not orthogonal"),
    ),
    *_of(
        "tests/abinitio/sgd/test_stochastic_average.py",
        (
            "self.sum += gradient - self._kept[batch].to(gradient)",
            "self.sum += gradient",
            "gradients of a batch pile up",
        ),
        (
            "self._prior.gradient(self.volume) / batches",
            "self._prior.gradient(self.volume)",
            "prior counted once for each batch",
        ),
        ("gain >= squared / (2 * lipschitz)", "gain >= squared / (4 * lipschitz)", "line search too easily content"),
        (
            "conv3d(volume[None, None], kernel, padding=1)[0, 0] / self.deviation**2",
            "conv3d(volume[None, None], kernel, padding=1)[0, 0] / self.deviation",
            "prior with the deviation once",
        ),
    ),
    *_of(
        "tests/abinitio/sgd/test_sgd_search.py",
        (
            "return start * (wanted / has) ** 0.5",
            "return start * (wanted / has)",
            "random spheres of the wrong strength",
        ),
    ),
    *_of(
        "tests/abinitio/moments/test_analytic.py",
        (
            "half = 0.5 * (2 * math.pi * shift_std) ** 2",
            "half = (2 * math.pi * shift_std) ** 2",
            "shifts blur moments twice as much",
        ),
        ("twice[0] = 1", "twice[0] = 2", "block of no angular frequency counted twice"),
        (
            "zero.index_add(0, self._degree, products) / (4 * math.pi)",
            "zero.index_add(0, self._degree, products) / (2 * math.pi)",
            "correlations of uniform views twice as large",
        ),
        (
            "weight_of_r = torch.from_numpy(weight) * (self.radius / 2) * r * r",
            "weight_of_r = torch.from_numpy(weight) * (self.radius / 2) * r",
            "transform of a ball with r, not r^2",
        ),
        ("((degree - 1) ** 2 - order**2)", "((degree - 1) ** 2 + order**2)", "harmonics of a wrong recursion"),
    ),
    *_of(
        "tests/abinitio/moments/test_steerable.py",
        ("(signal - noise * self._interpolation.noise)", "signal", "noise left in the second moment"),
        (
            "power, once = to.coefficients(transfer.square())",
            "power, once = to.coefficients(transfer.abs())",
            "moments over the transfer functions' moduli",
        ),
        ("= 1j * _real_product(half_rings.imag", "= _real_product(half_rings.imag", "odd angular frequencies turned"),
        (
            "* (weight / 2), direct - mirrored",
            "* (weight / 2), direct + mirrored",
            "imaginary parts alike at opposite frequencies",
        ),
    ),
    *_of(
        "tests/abinitio/moments/test_recovery.py",
        (
            "of_first = ring * weight.diagonal().sqrt()",
            "of_first = weight.diagonal().sqrt()",
            "first moment without the areas of rings",
        ),
        ("density.clamp_max(0).square().sum()", "density.clamp_min(0).square().sum()", "positive density punished"),
    ),
    *_of(
        "tests/abinitio/moments/test_alignment.py",
        ("/ count - noise_std**2 *", "/ count + noise_std**2 *", "noise added to a second moment"),
        ("* of_density[..., difference] *", "* of_density[..., difference].conj() *", "density of shifts turned round"),
        ("phase[0].conj() * torch.sgn(first[0].real)", "phase[0].conj()", "sign of the signal not looked at"),
    ),
    *_of(
        "tests/abinitio/moments/test_moments_search.py",
        (
            "if best is None or found.objective < best.objective",
            "if best is None or found.objective > best.objective",
            "the worst start of the moments taken",
        ),
        ("yield images[~far_in_power(images.power())]", "yield images", "moments of ice"),
    ),
    *_of(
        "tests/abinitio/moments/test_encoder.py",
        (
            "shift = int((of_first + of_second).argmin())",
            "shift = int((of_first + of_second).argmax())",
            "the signal moved to where its moments fit worst",
        ),
    ),
    *_of(
        "tests/abinitio/moments/test_networks.py",
        (
            "around = torch.cat((half, half.conj()), dim=2)",
            "around = torch.cat((half, half), dim=2)",
            "a refinement that is the same at opposite frequencies",
        ),
        (
            "coefficients * scale[:, None], probability",
            "coefficients, probability",
            "coefficients whatever the strength of the moments",
        ),
        (
            "of_basis + slices[: len(of_basis)], slices[len(of_basis) :]",
            "of_basis, slices[len(of_basis) :]",
            "refinement only where the basis has nothing",
        ),
        ("opposite * torch.tensor([1.0, -1.0]", "opposite * torch.tensor([1.0, 1.0]", "refinement of no real map"),
        (
            "concentration / (4 * math.pi * concentration.sinh())",
            "concentration / (4 * math.pi * concentration.cosh())",
            "densities of views of a wrong share",
        ),
    ),
]

_SOLVERS = [
    *_of(
        "tests/solvers/test_solvers.py",
        (
            "return value, point - self._problem.maximise(statistics)",
            "return value, self._problem.maximise(statistics) - point",
            "EM goes the other way",
        ),
        ("len(point) * len(rows) / self.count", "len(rows) / self.count", "a Hessian as cheap as a gradient"),
        ("self._rate / (1 + self._done / self._decay)", "self._rate", "SGD without decaying steps"),
        ("- self._field(self.point, rows)[1] + field", "- 0 * field", "batches whose variance is not reduced"),
        ("mean += point / self._iterations", "mean = point", "last point of an epoch for its mean"),
        ("sizes.clamp_min(float(", "sizes.clamp_max(float(", "large singular values cut, small ones kept"),
        (
            "direction + (weight - (changed @ direction)",
            "direction + (weight + (changed @ direction)",
            "second loop of L-BFGS with the wrong sign",
        ),
        (
            "direction = self._scale * direction\n",
            "direction = self._scale**2 * direction\n",
            "first estimate of L-BFGS squared",
        ),
        ("self.point - 2 * length * first[1]", "self.point - length * first[1]", "SQUAREM without its factor 2"),
        ("self._done**-self._power", "self._done**-0.5", "weights of online EM that do not follow the power"),
    ),
    *_of(
        "tests/estimation/solver/test_half_sets.py",
        ("found.gradient * (self.count / found.count)", "found.gradient", "batch not scaled to all images"),
        ("held = 0.25 * float", "held = 0.5 * float", "prior of a quartic weight counted twice"),
    ),
    *_of(
        "tests/orbit_recovery/test_mixture.py",
        (
            "self._log_rho(point).exp() - weight",
            "weight - self._log_rho(point).exp()",
            "gradient by the density with the sign of the thesis",
        ),
        (
            "images.square().sum(dim=1) / (2 * self._variance)",
            "images.square().sum(dim=1) / self._variance",
            "twice the norms of predicted observations",
        ),
        ("mean.T @ mean - torch", "mean.T @ mean + torch", "covariance of gradients added to the Hessian"),
        (
            "self._normal_matrix(weight / count) / self._variance",
            "self._normal_matrix(weight / count)",
            "Hessian without the variance of the noise",
        ),
    ),
    *_of(
        "tests/orbit_recovery/test_cryo_em.py",
        ("math.sqrt(2) * slices[:, 1:].imag", "slices[:, 1:].imag", "imaginary parts counted half"),
        ("(count * box_size**2 * snr)", "(count * snr)", "noise of an image for that of a pixel"),
        ("-sine * first[:, None] + cosine", "sine * first[:, None] + cosine", "axes of images not orthogonal"),
        (
            "math.sqrt(2) * legendre * powers[order].real",
            "legendre * powers[order].real",
            "harmonics without their factor 2",
        ),
    ),
]

FAULTS: tuple[Fault, ...] = (
    *_JUDGING, *_MODEL, *_POSES, *_SOLVER, *_ALTERNATION, *_RECONSTRUCTION, *_DATA, *_JOBS, *_PROJECTORS,
    *_ABINITIO, *_STOCHASTIC_DESCENT, *_SOLVERS,
)  # fmt: skip
"""Grouped by room."""
