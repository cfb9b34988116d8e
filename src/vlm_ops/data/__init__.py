"""Where rows come from, and how they become one kind of record."""
