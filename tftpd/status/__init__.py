"""Status of the daemon: a web page, JSON for programs, and metrics for Prometheus."""
