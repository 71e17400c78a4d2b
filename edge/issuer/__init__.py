"""Certificates by ACME: one process gets them and renews them, beside the gateway and on no request."""
