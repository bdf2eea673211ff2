"""Files that other projects published for language-specific neurons (Tang et al. 2024 and its replications).

Nothing in such a file is ever run: what is no tensor or plain container is refused.
"""
