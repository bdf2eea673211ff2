"""Find, perturb and explain language-specific neurons in language models."""

__version__ = "0.1.0"
