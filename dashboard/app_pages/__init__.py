"""One script per page, run by `dashboard.app`."""
