"""Pictures of what an upstream makes of single sound files."""
