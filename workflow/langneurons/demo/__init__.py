"""The embedded demonstration: an authored corpus in three languages, and tiny models trained on it."""
