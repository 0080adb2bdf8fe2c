"""What other programs may rely on: options, run directory, STAR files. Needs Python 3.8 and NumPy only."""
