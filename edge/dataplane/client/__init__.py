"""The client side: connections, request bodies, tunnels."""
