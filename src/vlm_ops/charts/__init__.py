"""The ``charts`` data set: questions about charts, with answers computed from tables."""
