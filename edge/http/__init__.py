"""What HTTP messages mean (RFC 9110, 9112): pure functions and values, no IO."""
