"""Tests of tunneledzmq/gateway/config, by the names of its modules."""
