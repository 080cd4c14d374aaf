"""The backend ``"sshtunnel"``: sshtunnel on paramiko, with the pump in the session's thread."""
