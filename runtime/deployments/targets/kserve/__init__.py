"""KServe's InferenceService."""
