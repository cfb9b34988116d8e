"""A local ``evaluate`` module: load it by this folder's path and the name of a metric."""
