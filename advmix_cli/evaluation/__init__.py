"""Measurements of a trained network: each is a function (network, images) -> one verdict an image."""
