"""What does a model say of the sound?"""
