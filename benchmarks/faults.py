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
        "tests/estimation/judging/test_components.py",
        ("latent_covariance(statistics) * norm[None, :]", "latent_covariance(statistics)",
         "held-out covariance scaled from one side only"),
        ("gain[:, None] * gamma * gain[None, :]", "gamma", "variance of half-set directions taken for that of all"),
        ("(energy * 2 / (1 + correlation))", "(energy / (1 + correlation))", "Spearman-Brown without its factor 2"),
        ("(mixture / norm[:, None] for norm in half_norms)", "(mixture * norm[:, None] for norm in half_norms)",
         "mixture of half-set factors multiplied by their norms"),
        ("return mix(factors, left @ right)", "return mix(factors, (left @ right).T)",
         "Procrustes rotation transposed"),
        ("torch.where(cubes < 0, -1.0, 1.0)", "torch.where(cubes < 0, 1.0, -1.0)", "sign of eigenvolumes turned"),
        ("((identity + gram) / (deviation", "(gram / (deviation", "precision of latents without the prior"),
        ("(posterior.mean[:, :rank] * deviation).float()", "(posterior.mean[:, :rank] / deviation).float()",
         "latents divided by their deviation"),
        ("            -posterior.objective,", "            posterior.objective,", "log-likelihood with the wrong sign"),
        ("(1 + spread * posterior.mean[:, -1])", "(1 - spread * posterior.mean[:, -1])", "contrast turned about one"),
        ("posterior.covariance[:, -1, -1] + missing)", "posterior.covariance[:, -1, -1])",
         "stated deviation of the contrast ignores the wider prior"),
        ("0.5 * (halves[0] + halves[1])) * mask", "0.5 * (halves[0] + halves[1]))", "eigenvolumes not masked"),
        ("gram = statistics.integrate_out(unfitted).gram", "gram = statistics.gram[:, :rank, :rank]",
         "precision of latents as if the contrast was known"),
        ("torch.minimum(*gains)", "torch.maximum(*gains)", "gain of the half that gains more"),
    ),
    *_of(
        "tests/estimation/judging/test_heldout.py",
        ("1 / own - 1 / variances", "1 / own", "information of a coordinate counts its prior"),
        ("posterior.mean / own, inner", "posterior.mean * own, inner", "inner product multiplied by the variance"),
        ("0.5 * (without - with_variance)", "(without - with_variance)", "gain twice too large"),
        ("error**2 / information - weight.log()", "error**2 / information + weight.log()",
         "log-determinant with the wrong sign"),
        ("(error * weight) ** 2 - information * weight)", "(error * weight) ** 2 - information)",
         "score of the variance without its weight"),
        (".diagonal(dim1=1, dim2=2) - known", ".diagonal(dim1=1, dim2=2) + known",
         "information beside the components added, not taken away"),
        ("statistics.inner[:, rank:] - (cross @", "statistics.inner[:, rank:] + (cross @",
         "inner product beside the components with the wrong sign"),
    ),
    *_of(
        "tests/estimation/judging/test_nuisance.py",
        ("torch.cat((mean[None], first, *second))", "torch.cat((first, *second))",
         "errors of contrast are no nuisance"),
        ("for turned in first[3:]]", "for turned in first[:3]]", "second derivatives of shifts for those of turns"),
    ),
    *_of(
        "tests/estimation/judging/test_rank.py",
        ("mask * ft_to_volume(power * phases, box_size)", "ft_to_volume(power * phases, box_size)",
         "decoys leave the mask"),
        ("decoys = decoys - mix(basis", "decoys = decoys + mix(basis", "decoys not orthogonal to the components"),
        ("axes.eigenvalues[kept])\n", "axes.eigenvalues[kept].sqrt())\n", "deviations in the place of variances"),
        ("(gains - decoy_gains - MARGIN).amin(dim=0)", "(gains - decoy_gains - MARGIN).amax(dim=0)",
         "the better half decides"),
        ("gains[:, count:].amax(dim=1, keepdim=True)", "gains[:, count:].amin(dim=1, keepdim=True)",
         "the worst decoy is to be beaten, not the best"),
        ("inner_products(axes, factors.volumes).norm(dim=1)",
         "inner_products(axes, factors.volumes).square().sum(dim=1)",
         "kept factors at their variance, not their deviation"),
    ),
    *_of(
        "tests/estimation/judging/test_outliers.py",
        ("(band.disk.weight * shown)", "(shown)", "signal power without Friedel weights"),
        ("slices[:, :, : 1 + len(factors)]", "slices[:, :, :1]", "signal power of the mean alone"),
        ("power * batch.ctf.double().square()", "power * batch.ctf.double().abs()",
         "power of an unknown structure by the transfer function, not its square"),
        ("noise = 0.5 * (observed @ weight)", "noise = (observed @ weight)",
         "likelihood of noise alone without its half"),
        ("torch.minimum(noise, other) - posterior", "torch.maximum(noise, other) - posterior",
         "the model against the less likely explanation"),
        ("2 * objective + torch.logdet(covariance)", "2 * objective - torch.logdet(covariance)",
         "distance with the determinant's wrong sign"),
        ("centred = values[members] - values[members].median()", "centred = values[members] - values.median()",
         "distances compared over optics groups"),
        ("batch.contrast.double() * (1 + band", "(1 + band", "contrast of an image without the one that is known"),
        ("(1 - 2 * PRIOR_SHARE) / PRIOR_SHARE", "PRIOR_SHARE / (1 - 2 * PRIOR_SHARE)", "prior odds turned over"),
    ),
]

_MODEL = [
    *_of(
        "tests/estimation/solver/test_preconditioner.py tests/estimation/solver/test_mini_batches.py"
        " tests/estimation/solver/test_epochs.py",
        ("return torch.maximum(spectrum, smooth_ft.real)", "return torch.minimum(spectrum, smooth_ft.real)",
         "a spectrum lowered by the mask, not raised"),
        ("fourier_crop_volume(mask, box_size).clamp(0, 1).sqrt()", "fourier_crop_volume(mask, box_size).clamp(0, 1)",
         "mask in the place of its root"),
        ("volume_to_ft(mask_root).abs() ** 2", "volume_to_ft(mask_root).abs()", "autocorrelation without the square"),
        ("for part in shuffled.tensor_split(count)", "for part in index.tensor_split(count)",
         "mini-batches in the order of the file"),
    ),
    *_of(
        "tests/estimation/model/test_contrast.py tests/estimation/model/test_expectation.py",
        ("inner.square() / share.square() - gram / share", "inner.square() / share - gram / share",
         "score of the contrast's variance with one weight too few"),
        ("with_contrast_error(products, contrast, 1.0)", "with_contrast_error(products, contrast, 2.0)",
         "evidence of the contrast in twice its unit"),
    ),
    *_of(
        "tests/estimation/model/test_expectation.py",
        ("of_mean = row + deviation * terms.moments[:, -1:]", "of_mean = row - deviation * terms.moments[:, -1:]",
         "gradient with the wrong sign of the error of the contrast"),
        ("a**2 * of_nuisance, -a * row)", "a**2 * of_nuisance, -row)", "gradient of an image without its contrast"),
        ("torch.cat((a**2 * of_mean, a**2 * moments", "torch.cat((a * of_mean, a**2 * moments",
         "gradient of the mean with one contrast too few"),
        ("moments[:, fitted:] + expected[:, :, None] * of_mean", "moments[:, fitted:]",
         "gradient where nuisance is not expected"),
        ("slices[:, :, 0] += (slices[:, :, fitted:]", "slices[:, :, 0] -= (slices[:, :, fitted:]",
         "slice of the mean moved away from where nuisance is expected"),
        ("information += terms.information.sum(dim=0)", "information += terms.second_moment.sum(dim=0)",
         "second moment in the place of the information"),
    ),
    *_of(
        "tests/estimation/model/test_half_models.py",
        ("torch.cat((fitted.new_ones(len(batch), 1), fitted), dim=1) * batch.contrast[:, None]",
         "torch.cat((fitted.new_ones(len(batch), 1), fitted), dim=1)", "an image explained without its contrast"),
        ("precision = (identity + statistics.gram) /", "precision = statistics.gram /",
         "precision of a half-set's latents without the prior"),
        ("fitted = _least_squares(statistics).float()", "fitted = posterior.mean[:, :rank].float()",
         "what is taken away from images shrunk by the prior"),
        ("posterior.mean[:, :rank] * deviation, precision", "posterior.mean[:, :rank], precision",
         "a half-set's latents not in the units of the components"),
        ("replace(batch, ctf=batch.ctf * batch.contrast[:, None])", "batch",
         "scale of the mean without contrasts"),
        ("return mix(factors, coefficients)", "return mix(factors, inner_products(factors, eigenvolumes))",
         "projection onto factors as if they were orthonormal"),
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
        ("(log_determinant + statistics.residual - explained)", "(log_determinant + statistics.residual + explained)",
         "what is explained added to the objective"),
        ("return self.covariance + self.mean[:, :, None]", "return self.mean[:, :, None]",
         "second moment without the covariance"),
        ("image = residual.square() - 2 * residual", "image = residual.square() - residual",
         "least squares without a factor 2 of the noise"),
        ("moments = (gram + _identity_like(gram))[:, :, :rank]", "moments = gram[:, :, :rank]",
         "gradient of least squares without the noise"),
        ("gram.square().sum(dim=(-2, -1)) + 2 * trace", "gram.square().sum(dim=(-2, -1)) + trace",
         "least squares with half of the trace"),
        ("return 2 * information + _identity_like", "return information + _identity_like",
         "curvature of least squares halved"),
    ),
    *_of(
        "tests/estimation/model/test_residuals.py",
        ("torch.cat((slices[:, :, 1:], deviation * slices[:, :, :1]), dim=2)",
         "torch.cat((slices[:, :, 1:], slices[:, :, :1]), dim=2)", "residuals with contrasts of deviation one"),
        ("(batch.images - explained).abs() ** 2 + (spread.abs() ** 2).sum(dim=-1)",
         "(batch.images - explained).abs() ** 2", "noise from plain residuals"),
        ("loadings = contrast * torch.cat", "loadings = torch.cat", "residuals of factors without the contrast"),
    ),
    *_of(
        "tests/estimation/model/test_objectives.py tests/estimation/model/test_expectation.py",
        ("products[:, -1, -1] - 2 * a * products[:, 0, -1]", "products[:, -1, -1] - a * products[:, 0, -1]",
         "residual without a factor 2"),
        ("(products[:, columns, -1] - a[:, None] * products[:, columns, 0])",
         "(products[:, columns, -1] - products[:, columns, 0])", "inner products with the mean at contrast one"),
        ("keep] - cross.transpose(1, 2) @ cross", "keep] + cross.transpose(1, 2) @ cross",
         "marginalised columns add information"),
        ("inner.square().sum(dim=(1, 2)) + log_determinant", "inner.square().sum(dim=(1, 2)) - log_determinant",
         "marginal likelihood with the determinant's wrong sign"),
        ("@ moved[:, columns, :])[:, 0]", "@ products[:, columns, :])[:, 0]",
         "expected nuisance without its square"),
    ),
]

_POSES = [
    *_of(
        "tests/estimation/poses/test_uncertainty.py tests/estimation/judging/test_nuisance.py",
        ("self.move_px * mean.shape[-1] / full_box_size", "self.move_px * full_box_size / mean.shape[-1]",
         "spread of shifts scaled to a larger box"),
        ("given.rotation.double() @ present.rotation.double().mT",
         "present.rotation.double() @ given.rotation.double().mT",
         "expected errors of orientations with the wrong sign"),
        ("torch.cat((move / spread.move_px, turn / spread.turn_rad), dim=1)",
         "torch.cat((turn / spread.turn_rad, move / spread.move_px), dim=1)", "turns and moves swapped"),
        ("float(variance[:3].mean()) ** 0.5, float(variance[3:].mean()) ** 0.5",
         "float(variance[3:].mean()) ** 0.5, float(variance[:3].mean()) ** 0.5", "spreads of turns and moves swapped"),
        ("present.rotation.double()[:, :, :2] @", "present.rotation.double().mT[:, :, :2] @",
         "shift carried to the frame of the map by the transposed rotation"),
    ),
    *_of(
        "tests/estimation/poses/test_uncertainty.py tests/estimation/poses/test_refinement.py",
        ("latent_posterior(Statistics.with_contrast_error(products, batch.contrast, self._deviation))",
         "latent_posterior(Statistics.with_contrast_error(products, batch.contrast, self._deviation / 2))",
         "likelihood of a pose with half of the contrast's deviation"),
        ("mixed.to(kind)", "coefficients.to(kind)", "slices weighted as if the mean came last"),
        ("gradient[:, :3] += turn", "gradient[:, :3] -= turn", "determinant's derivative with the wrong sign"),
        ("products[:, :, channels:-1] - coupling @ loadings.mT", "products[:, :, channels:-1]",
         "latents not integrated out of the matrix of poses"),
        ("self.latent_covariance - self.coupling.mT @ cross", "self.latent_covariance + self.coupling.mT @ cross",
         "uncertain poses make latents more certain"),
        ("error = products[:, :, -1] - contrast * products[:, :, 0]", "error = products[:, :, -1] - products[:, :, 0]",
         "error of an image as if its contrast was one"),
        ("coefficients[:, -1:] += contrast", "coefficients[:, -1:] += 1", "derivative of the mean at contrast one"),
        ("rotation_to_rotvec(self.rotation.mT @ rotation)", "rotation_to_rotvec(rotation.mT @ self.rotation)",
         "prior pushes orientations away"),
        ("shift_px - self.shift_px), dim=1)", "shift_px + self.shift_px), dim=1)", "prior of shifts on the other side"),
        ("[spread.turn_rad**-2] * 3", "[spread.turn_rad**-1] * 3", "prior precision by deviation, not variance"),
        ("return 0.5 * self._offset", "return self._offset", "prior of poses twice too strong"),
        ("rotation[rows] @ rotvec_to_rotation(step[:, :3])", "rotvec_to_rotation(step[:, :3]) @ rotation[rows]",
         "turns in the frame of the map, not the image"),
        ("value = posterior.objective + prior[rows].objective(turned, moved)", "value = posterior.objective",
         "steps accepted without the prior"),
        ("step = -torch.linalg.solve(damped(matrix", "step = torch.linalg.solve(damped(matrix", "steps uphill"),
        ("rotvec_to_rotation(-_RATE_RAD * mean", "rotvec_to_rotation(_RATE_RAD * mean", "descent uphill"),
    ),
]

_SOLVER = [
    *_of(
        "tests/estimation/solver/test_epochs.py",
        ("share = index.shape[0] / expectation.count", "share = 1.0", "gradient of a mini-batch taken for that of all"),
        ("step = mask_root * ft_to_volume(", "step = ft_to_volume(", "steps leave the mask"),
        ("/ preconditioner.bound(spectrum), vectors.T)", "/ preconditioner.bound(spectrum), vectors)",
         "steps mixed back by the transposed basis"),
        ("(gradient + pulled)", "(gradient - pulled)", "prior with the wrong sign"),
        (".float().rsqrt(), box_size)", ".float(), box_size)", "random start by the precision, not the deviation"),
    ),
    *_of(
        "tests/estimation/solver/test_half_sets.py",
        ("problem.band(shell_max), problem.preconditioner(shell_max, 0.5)",
         "problem.band(shell_max), problem.preconditioner(shell_max, 1.0)",
         "half-sets weighted by the density of all images"),
        ("of_half = problem.preconditioner(shell_max, 0.5)", "of_half = problem.preconditioner(shell_max, 1.0)",
         "prior of all images by their density"),
        ("1.0 / (_START_SHARE * power)", "1.0 / (power)", "random start as strong as the mean"),
        ("average = 0.5 * (first.volumes + second.volumes)", "average = first.volumes + second.volumes",
         "all images start from the sum of the halves"),
        ("index = torch.cat(problem.halves)", "index = torch.cat(problem.halves[:1])",
         "fit of all images sees one half-set"),
    ),
    *_of(
        "tests/estimation/solver/test_gauge.py",
        ("values.clamp_min(1e-12).sqrt() @ vectors.T", "values.clamp_min(1e-12) @ vectors.T",
         "gauge by the second moment, not its root"),
        ("mix(factors2, right.T)", "mix(factors2, right)", "second half aligned by the transposed rotation"),
    ),
    *_of(
        "tests/estimation/solver/test_agreement.py",
        ("cross / (power1 * power2).clamp_min(1e-300).sqrt()", "cross / (power1 * power2).clamp_min(1e-300)",
         "component correlation without the root"),
        ("inner(second, second)).clamp_min(1e-300).sqrt()", "inner(second, second)).clamp_min(1e-300)",
         "covariance correlation without the root"),
        ("cross, power1, power2 = cross @ pool.T, power1 @ pool.T, power2 @ pool.T\n", "\n",
         "small shells not pooled"),
    ),
    *_of(
        "tests/estimation/model/test_penalties.py tests/estimation/solver/test_priors.py",
        ("_shell_fields(2 * mixed, self._box_size)", "_shell_fields(mixed, self._box_size)",
         "curvature of the weighted prior halved"),
        ("return self._field * factors_ft", "return self._field.sqrt() * factors_ft", "prior by the deviation"),
        ("mix(self._field, vectors**2)", "mix(self._field, vectors)", "curvature of the prior mixed by amplitudes"),
        ("self._root * mix(self._root * factors_ft", "mix(self._root * factors_ft", "weighted prior with one root"),
    ),
]

_RECONSTRUCTION = [
    *_of(
        "tests/reconstruction/test_kernel_blending.py tests/reconstruction/test_kernel_regression.py",
        ("(correlation - chance).clamp(0, 1)", "correlation.clamp(0, 1)", "chance correlation not subtracted"),
        ("return 2 * certain / (1 + certain)", "return certain", "gain of one half for that of the average"),
        ("shares *= 1 - gain", "shares *= 1", "shares of kernels do not add up to one"),
        ("windows.analyse((narrower - wider) * mask)", "windows.analyse(narrower - wider)",
         "detail added outside the mask"),
        ("_INDEPENDENT * coefficients_per_shell(windows.size,", "2 * coefficients_per_shell(windows.size,",
         "chance as if coefficients of windows were independent"),
    ),
    *_of(
        "tests/reconstruction/test_kernel_regression.py",
        ("torch.tril(1 - average / squared[:, None])", "torch.tril(1 - (average / squared[:, None]).sqrt())",
         "triangular kernel"),
        ("power = (disk.weight * ctf * ctf)", "power = (disk.weight * ctf)", "transfer function not squared"),
        ("image = batch.images * (disk.weight * ctf)", "image = batch.images * ctf",
         "images back-projected without Friedel weights"),
        ("1 - 0.75 * relative + relative**3 / 16", "1 - 0.5 * relative", "autocorrelation of a ball as a cone"),
        ("offset + levelled_estimate(", "offset - levelled_estimate(", "what images add is taken away"),
        ("(weight * shells_to_volume((1.0 / gain).float(), box_size))", "weight",
         "shells shrunk twice, by the estimate and the filter"),
        ("volume_to_ft(image * ball)", "volume_to_ft(image)", "sums not confined to the ball"),
    ),
    *_of(
        "tests/reconstruction/test_mean.py",
        ("radial_average(0.5 * both.density()", "radial_average(both.density()", "prior of the mean twice too strong"),
        ("* (1 - clamped) / clamped", "* clamped / (1 - clamped)", "Wiener filter turned over"),
        ("shells_to_volume(mean.fsc.clamp(0, 1).float(), box_size)",
         "shells_to_volume(torch.ones_like(mean.fsc).float(), box_size)", "half-maps for refinement unfiltered"),
    ),
    *_of(
        "tests/reconstruction/test_normal_equations.py",
        ("sums.kernel() * (_OVERSAMPLING / source.box_size)", "sums.kernel() * (1 / source.box_size)",
         "operator without a factor 2"),
        ("weighted = disk.weight * ctf", "weighted = ctf", "normal equations without Friedel weights"),
        ("volume_to_ft(response).real * box_size", "volume_to_ft(response).real", "density in other units"),
        ("pulled = ft_to_volume(precision *", "pulled = ft_to_volume(0 * precision *", "solution without its prior"),
        ("self.kernel_ft + other.kernel_ft", "self.kernel_ft", "sum of two sets with the operator of one"),
        ("resize_volume_ft(density, box_size, new_size) * (new_size / box_size)",
         "resize_volume_ft(density, box_size, new_size) * (box_size / new_size)", "density of a smaller box too large"),
        ("conjugate = direction + (new_energy / energy)", "conjugate = direction - (new_energy / energy)",
         "directions of the solver not conjugate"),
    ),
    *_of(
        "tests/reconstruction/test_sharpening.py",
        ("GuinierFit(4 * float(slope)", "GuinierFit(2 * float(slope)", "B-factor halved"),
        ("torch.exp(-0.25 * b_factor", "torch.exp(0.25 * b_factor", "sharpening blurs"),
        ("np.sqrt(2 * known / (1 + known))", "(2 * known / (1 + known))", "amplitudes weighted by power"),
    ),
    *_of(
        "tests/reconstruction/test_windows.py",
        ("(products * hermitian_weight(self.size, products.device))", "(products)",
         "local spectra without Hermitian weights"),
        ("torch.sin(torch.pi * position).to", "torch.sin(torch.pi * position).square().to",
         "squares of windows as windows"),
        ("device=like.device) + 0.5) / self.size", "device=like.device)) / self.size",
         "windows half a voxel off"),
        ("0.25 * padded[..., :-2] + 0.5 * values + 0.25 * padded[..., 2:]", "0.5 * padded[..., :-2] + 0.5 * values",
         "shells blended to one side"),
        ("sum(dim=(1, 2, 3)) / profile.sum()", "sum(dim=(1, 2, 3)) / profile.numel()", "share of a mask too small"),
        ("torch.cat((values, values[:, -1:]), dim=1)[:, self._shell_index(",
         "torch.cat((values, 0 * values[:, -1:]), dim=1)[:, self._shell_index(",
         "coefficients beyond the last shell filtered away"),
    ),
    *_of(
        "tests/reconstruction/test_filtering.py",
        ("gain = (2 * positive / (1 + positive))", "gain = positive", "filter of one half for the average"),
        ("corrected = (masked - random) / (1 - random)", "corrected = masked",
         "correlation not corrected for the mask"),
        ("        windows.smooth_places(sums)\n", "        sums\n", "local correlation of single windows"),
        ("torch.where(is_random, spectrum.abs() * phases, spectrum)", "torch.where(is_random, phases, spectrum)",
         "randomised phases without amplitudes"),
        ("outside=max(found))", "outside=min(found))", "best resolution where there are no windows"),
        ("masked[: first + 2], corrected[first + 2 :]", "masked[:first], corrected[first:]",
         "correction where the mask mixes kept coefficients"),
    ),
]

_DATA = [
    *_of(
        "tests/data/test_stream.py",
        ("images / (whitening * self.image_scale[index, None].to(whitening.device))", "images / whitening",
         "subtraction that ignores an image's scale"),
        ("images * (whitening * self.image_scale[rows, None].to(device))", "images * whitening",
         "images without their scale"),
        ("(self.pose.shift[rows] - self.centring[rows])", "(self.centring[rows] - self.pose.shift[rows])",
         "refined shifts with the wrong sign"),
        ("Batch(images, ctf * self.sign,", "Batch(images, ctf,", "sign of the contrast lost"),
        ("disk, self.pixel_size) * whitening", "disk, self.pixel_size)", "transfer function not whitened"),
        ("        return replace(self, contrast=contrast.float())", "        return self", "known contrasts not used"),
    ),
    *_of(
        "tests/data/test_noise.py",
        (".abs().double() ** 2 / float(background.mean())", ".abs().double() ** 2",
         "noise of the background's pixels for that of all"),
        ("torch.maximum(repaired[..., :first], level)", "repaired[..., :first]",
         "noise of the lowest shells as low as flattening makes it"),
        ("self.columns * weight[:first, None]).mH", "self.columns).mH",
         "backgrounds projected without Friedel weights"),
        ("shell, values.double() * weight)", "shell, values.double())", "shell averages without Friedel weights"),
        ("noise_variance * power / seen", "noise_variance * power", "noise too low where a group sees part of a shell"),
        ("        return median / deviation", "        return deviation / median", "normalisation turned over"),
    ),
    *_of(
        "tests/data/test_preprocess.py",
        ("images_to_scaled_disk(images, disk, ratio) * ratio**2", "images_to_scaled_disk(images, disk, ratio)",
         "coarser pixels not counted for more"),
        ("disk).cpu() * ratio**4", "disk).cpu() * ratio**2",
         "noise of coarser pixels by amplitude"),
        ("shift_px = stack.pose.shift[rows[members]]", "shift_px = -stack.pose.shift[rows[members]]",
         "images moved away from their centres"),
        ("scale[rows, None].double() ** 2", "scale[rows, None].double()", "noise scaled by amplitude"),
        ("stack.pixel_size * stack.box_size / box_size", "stack.pixel_size * box_size / stack.box_size",
         "pixel size of the working box turned over"),
        ("flat[rows] = images[rows] - torch.einsum", "flat[rows] = images[rows] + torch.einsum",
         "background added instead of taken away"),
    ),
    *_of(
        "tests/data/test_particles.py",
        ("values = detector * 1e4 / magnification", "values = detector * 1e3 / magnification",
         "pixel size of old files"),
        ("(shift / pixel_size[:, None])", "(shift * pixel_size[:, None])", "shifts written in the wrong unit"),
        ("return order[place]", "return place", "optics groups in the order of their numbers, not of the table"),
        ("torch.from_numpy(flipped != 0)", "torch.from_numpy(flipped == 0)", "phase-flipping turned over"),
        ("image[row] = int(number) - 1 if at", "image[row] = int(number) if at", "the next image"),
        ("offset = header.data_offset + first * header.section_bytes",
         "offset = 1024 + first * header.section_bytes", "extended header read as images"),
    ),
    *_of(
        "tests/data/test_volumes.py tests/data/test_mrc.py",
        ("for axis in (3, 2, 1)]", "for axis in (1, 2, 3)]", "maps with z and x swapped"),
        ("HEADER_BYTES + int(header[\"extended_bytes\"])", "HEADER_BYTES", "extended header read as values"),
    ),
]

_ALTERNATION = [
    *_of(
        "tests/estimation/alternation/test_images.py",
        ("zip(halves, reversed(state.factors), strict=True)", "zip(halves, state.factors, strict=True)",
         "halves judged by their own factors"),
        ("index[~outlier[index]])\n        for rows", "index)\n        for rows", "outliers count for the noise"),
        ("is_doubted = share > _MOST_OUTLIERS", "is_doubted = share > 1",
         "all images left out where the model is in doubt"),
    ),
    *_of(
        "tests/estimation/alternation/test_refined_poses.py tests/estimation/alternation/test_pose_rounds.py",
        ("states = found.states if this.is_last else", "states = found.states if not this.is_last else",
         "uncertainty of the frame in the wrong rounds"),
        ("zip(this.halves, means, state.factors, strict=True)",
         "zip(this.halves, means, reversed(state.factors), strict=True)",
         "poses refined under the factors of the other half"),
        ("pose.shift[index] + found.moved", "pose.shift[index] - found.moved",
         "refined shifts taken away, not added"),
    ),
    *_of(
        "tests/estimation/alternation/test_iteration.py",
        ("is_last=number == len(problem.rounds)", "is_last=number != len(problem.rounds)",
         "last refinement of poses taken for an earlier one"),
    ),
]

_JOBS = [
    *_of(
        "tests/jobs/fit/test_results.py",
        ("return left + float((known / known.mean()).var())", "return left", "spread of known contrasts left out"),
    ),
    *_of(
        "tests/jobs/states/test_kernel_problem.py",
        ("volume_to_ft(read_volume(path).data) * gain", "volume_to_ft(read_volume(path).data)",
         "half means unfiltered"),
        ("zip(rows, models, strict=True)", "zip(rows, models[::-1], strict=True)",
         "images relieved by the model of the other half"),
        ("scale * _half_components(run, space, half)", "_half_components(run, space, half)",
         "components not at the scale of the images"),
    ),
]

FAULTS: tuple[Fault, ...] = (
    *_JUDGING, *_MODEL, *_POSES, *_SOLVER, *_ALTERNATION, *_RECONSTRUCTION, *_DATA, *_JOBS,
)  # fmt: skip
"""Grouped by room."""
