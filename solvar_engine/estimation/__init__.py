"""Estimation of the covariance: statistics, objective, regularisation, solver, frequency marching, posterior."""
