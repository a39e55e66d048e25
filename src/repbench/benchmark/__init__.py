"""How well, how surely, at what cost?"""
