"""The fifteen common corruptions at five severities."""
