"""One request from start to end: what a worker process runs."""
