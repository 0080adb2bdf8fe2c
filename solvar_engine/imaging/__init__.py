"""The physics of one image: poses, contrast transfer, Fourier transforms, shells and masks."""
