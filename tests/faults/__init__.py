"""What the tunnels do under faults: one module a kind of fault."""
