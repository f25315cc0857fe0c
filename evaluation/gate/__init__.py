"""What the whole gate lets through, and whether its promise holds."""
