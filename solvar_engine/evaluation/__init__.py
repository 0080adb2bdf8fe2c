"""How close an estimate comes to a known truth. Pure functions: arrays in, numbers out."""
