"""How cells come about: one folder each, arrays only, none knows another."""
