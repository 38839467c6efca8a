"""Many async callers share one API quota, and none of them gets a 429."""
