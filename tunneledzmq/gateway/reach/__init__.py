"""How a server is reached: by a command in place of the TCP connection."""
