"""What a recorded drive says about itself, and the same drive decided again."""
