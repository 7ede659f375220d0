"""Fuzz targets: each module has a function `check(data)` that raises when an invariant fails."""
