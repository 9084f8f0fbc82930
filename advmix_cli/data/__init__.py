"""Datasets as uint8 tensors on the device that trains."""
