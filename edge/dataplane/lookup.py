"""Stub."""


def quick_hit(exchange, route):
    return False


def lookup(exchange, route):
    from edge.dataplane.fetch import forward

    forward(exchange)
