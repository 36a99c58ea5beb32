"""Daemonkit and its peers doing the same job, measured side by side."""
