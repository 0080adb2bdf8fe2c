"""Pictures of surfaces, which need SciPy; all other figures are in `solvar_engine.figures`."""
