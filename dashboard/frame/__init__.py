"""What stands around every page: sidebar, verdict, strip, actions."""
