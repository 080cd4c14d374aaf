"""Programs as the users of these projects write them. They know nothing of tunnels.

Each takes the name of a file, and writes a JSON object into it: what it has done, by its parts.
"""
