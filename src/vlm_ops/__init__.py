"""Retrain a vision language model on a schedule, prove that it is better, promote it."""

__version__ = "0.1.0"
