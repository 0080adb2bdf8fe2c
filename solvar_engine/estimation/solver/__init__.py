"""How the factors of the covariance are found."""
