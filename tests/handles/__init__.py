"""Tests of tunneledzmq/handles, by the names of its modules."""
