"""The numeric core of framegate: reference implementations that every kernel and backend is checked against."""
