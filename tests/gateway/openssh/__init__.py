"""Tests of tunneledzmq/gateway/openssh, by the names of its modules."""
