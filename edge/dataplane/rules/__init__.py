"""What a route does besides forwarding: rules compiled at load, empty for most routes."""
