"""Ordinary life in real time, every timer at its default: nothing is lost while nothing is wrong.

`python -m pytest tests/endurance -n 24` takes four minutes. The cases sleep most of the time, so
that many run side by side; each worker has a temporary directory and servers of its own.
"""
