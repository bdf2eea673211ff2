"""Where each model family keeps its FFN, and how models are loaded."""
