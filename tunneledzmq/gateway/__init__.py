"""The gateway: one SSH connection, and the tunnels through it.

It runs in a process of its own (or on a thread, with ``isolate=False``); nothing of it is imported
on the program's side, except through :mod:`tunneledzmq.handles.home`.
"""
