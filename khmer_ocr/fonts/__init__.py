"""Fonts: found, catalogued, installed."""
