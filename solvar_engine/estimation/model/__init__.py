"""What an image is under the model: inner products, objectives, posteriors."""
