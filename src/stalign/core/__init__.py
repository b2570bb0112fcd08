"""Algorithms on arrays and sparse matrices; nothing here knows AnnData, SpatialData or torch."""
