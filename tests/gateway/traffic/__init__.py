"""Tests of tunneledzmq/gateway/traffic, by the names of its modules."""
