"""Programs that train."""
