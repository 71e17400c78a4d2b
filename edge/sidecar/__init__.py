"""The recovery side: taking, keeping, verifying and restoring points. A process of its own; on no request."""
