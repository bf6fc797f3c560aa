"""What users may ask of a deployment."""
