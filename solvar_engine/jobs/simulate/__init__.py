"""Files of a simulated data set."""
