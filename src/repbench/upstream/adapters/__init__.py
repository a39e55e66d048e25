"""Models of other libraries as upstreams: transformers, torchaudio, Python modules, and stored features."""
