"""Simulated data sets whose truth is known in closed form: phantoms, their volumes and their images.

Others use `phantoms` (`make_phantom`: molecules of Gaussian atoms), `maps` (`MapMolecule`: density maps as states),
`molecules` (what both have in common) and `particles` (what is drawn for each particle, and its image); `effects` (what
microscopes add: `MicroscopeEffects`), `additions` (the sum of them in an image), `neighbours`, `noise` and `junk`;
`masks`, `projections`, `views`, `background` and `streams` (random numbers of each purpose) serve them.
"""
