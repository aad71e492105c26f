"""What a browser shows: the dashboard of runs, the page to talk to a model; and numbers for Prometheus."""
