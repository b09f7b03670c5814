"""Tools that look into a net."""
