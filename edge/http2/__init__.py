"""What HTTP/2 means on the wire (RFC 9113, 7541), pure: frames, header compression, and one strict header block."""
