"""Central slices of many volumes at once and their exact adjoint, with one backend chosen in one place."""
