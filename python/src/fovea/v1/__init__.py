"""The wire protocol, generated from proto/fovea/v1 by generate.py. The rest of the package hides it; it may change."""
