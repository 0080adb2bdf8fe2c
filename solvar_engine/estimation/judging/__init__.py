"""What was found on images that took no part: scale, rank, outliers, nuisance."""
