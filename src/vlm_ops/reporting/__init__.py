"""One page for people: a run, or two versions beside each other."""
