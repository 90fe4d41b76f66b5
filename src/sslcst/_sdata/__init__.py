"""The only rooms that read or write a SpatialData object or its store."""
