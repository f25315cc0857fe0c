"""Where frames come from: cameras, streams, files, a test pattern."""
