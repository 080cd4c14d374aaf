"""Tests of tunneledzmq/shared, by the names of its modules."""
