"""From ``.cu`` sources to images for each architecture."""
