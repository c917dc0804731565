"""Finding files: walks, lists, names."""
