"""What decides, driven through simulated days: no server, no clock, no thread."""
