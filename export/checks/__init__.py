"""The checks that refuse an export."""
