"""Where verdicts and frames go: JSON lines, video, recordings."""
