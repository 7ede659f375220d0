"""Helpers of the tests, the fuzz targets and the benchmarks."""
