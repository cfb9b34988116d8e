"""The steps of the pipeline: their table, whether one has to run, the process it runs in."""
