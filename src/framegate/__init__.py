"""Camera frames in, one verdict per frame out: may driving logic use this prediction, and if not, why not."""
