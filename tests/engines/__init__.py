"""Engines, against independent computations."""
