"""Copies of training images among samples."""
