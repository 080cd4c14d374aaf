"""Tests of tunneledzmq/gateway, by the names of its modules."""
