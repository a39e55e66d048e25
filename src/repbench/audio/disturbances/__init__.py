"""Disturbances of test sound: noise, rooms, channels, codecs, level, losses, rate and timing."""
