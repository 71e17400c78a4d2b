"""What every room of the data path knows of a request: its exchange, route, client, worker, and the store."""
