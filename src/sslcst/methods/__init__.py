"""How cells come about: one folder a method, arrays only, none knows another."""
