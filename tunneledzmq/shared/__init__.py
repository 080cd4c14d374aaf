"""What the program and its gateways share: the control pipe, the endpoints and names."""
