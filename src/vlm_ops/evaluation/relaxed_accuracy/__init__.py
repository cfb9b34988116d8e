"""A local ``evaluate`` module: load it by this folder's path."""
