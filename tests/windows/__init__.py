"""The suite on Windows, which Wine stands in for: what runs there, and what does not, and why.

Wine has neither an sshd nor a way to see what Linux sees. So servers and peers stay on Linux, where
`far` makes them for the tests, and the program's side, gateways included, is Windows's own.
"""
