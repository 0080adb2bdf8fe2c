"""Estimation of the covariance, from whitened images to components.

A room imports only those that stand before it:

- ``sampling``: which particles are looked at;
- ``pose_scores``: images at all poses of a grid, and sums over the posterior of these;
- ``model``: what an image is under mean, factors, contrast and noise;
- ``poses``: what is known of poses, and poses that fit better;
- ``solver``: the factors of half-sets and of all images, band by band;
- ``judging``: what held-out images say: scale, rank, outliers, nuisance;
- ``alternation``: how mean, factors, poses, noise and outliers take turns, as an iterator of states.

Here *factors* are the columns V of the covariance V V^T, with latent coordinates of unit variance, in any gauge; a
*component* is a principal component of it: an eigenvolume of unit norm with its eigenvalue.

Nothing here reads or writes files: images come from a `BatchSource` (`imaging.types`), and states are dataclasses that
a caller may keep.
"""
