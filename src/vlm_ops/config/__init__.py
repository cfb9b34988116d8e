"""Frozen, typed settings; YAML by hand, JSON by machine. Imports nothing heavy."""
