"""The backend on the system's ``ssh``: a master connection, and its control socket."""
