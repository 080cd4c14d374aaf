"""The tunnels of a gateway: local endpoints, connections, peers, and the pump that moves bytes."""
