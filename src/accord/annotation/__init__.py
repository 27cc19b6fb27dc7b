"""People's labels: who said what, whether they agree, and when there are enough."""
