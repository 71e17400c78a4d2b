"""Cache decisions and the in-memory index (RFC 9111): pure domain, no IO, no clock."""
