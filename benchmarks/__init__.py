"""Measurements of this package beside today's ways to take ZeroMQ through SSH."""
