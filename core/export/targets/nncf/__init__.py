"""OpenVINO through NNCF."""
