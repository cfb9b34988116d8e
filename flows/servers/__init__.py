"""The servers of a runs folder, the worker, and the end of them when nobody uses them any more."""
