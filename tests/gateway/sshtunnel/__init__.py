"""Tests of tunneledzmq/gateway/sshtunnel, by the names of its modules."""
