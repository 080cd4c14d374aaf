"""What the program holds of its gateways: it starts them, speaks to them, and restarts them."""
