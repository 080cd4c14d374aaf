"""The programs of others, unchanged, with `tunneledzmq run` through an SSH server.

    python -m tests.unchanged [NAME ...]

Each is brought from the registry by pip, into an environment of its own that is removed in the
end. It runs with plain pyzmq, and once more with every connect to a tcp:// address through
OpenSSH's server. What differs is listed by name: an error, but where `differences` has the reason.
"""
