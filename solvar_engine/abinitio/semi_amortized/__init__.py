"""Poses from a network first, then from descents of their own (Shekarforoush et al., NeurIPS 2024).

Others use `search` (`find_structure_by_semi_amortized`, and the two phases with their options), and benchmarks the
phases alone: `problem`, `maps`, `encoder`, `training`, `auto_encoding` and `auto_decoding`.
"""
