"""How things are kept: by content, whole or not at all, one run at a time."""
