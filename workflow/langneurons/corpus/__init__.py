"""Text: where documents come from, and how they become windows of tokens."""
