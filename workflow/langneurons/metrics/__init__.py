"""What changed: perplexity and text."""
