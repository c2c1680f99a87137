"""Measurements, always as ratios against bare Unicorn in the same run: `make bench`."""
