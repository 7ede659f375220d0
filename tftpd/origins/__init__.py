"""Origins: object stores and web servers as roots, with a cache on disk."""
