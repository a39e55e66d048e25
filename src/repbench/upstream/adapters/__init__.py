"""Models of other libraries as upstreams: transformers, torchaudio, Python modules, folders of features."""
