"""Whether a model's numbers can be trusted."""
