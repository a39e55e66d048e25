"""How does a sound file become samples, and samples become frames?"""
