"""Particles and volumes on disk: what STAR and MRC files hold, checked, as tensors."""
