"""The method on arrays: numpy, scipy, scikit-image, numba and torch; nothing of SpatialData, dask or files."""
