"""Tests of tunneledzmq/gateway/reach, by the names of its modules."""
