"""Tests of tunneledzmq/gateway/trust, by the names of its modules."""
