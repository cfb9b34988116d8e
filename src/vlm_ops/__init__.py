"""Retrain a vision language model on a schedule, test whether it is better, promote it."""

__version__ = "0.1.0"
