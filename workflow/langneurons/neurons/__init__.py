"""Which neurons belong to a language: counting, LAPE, random controls."""
