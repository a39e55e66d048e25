"""Tokens of phones and the cells of ABX that they make."""
