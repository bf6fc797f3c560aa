"""What is known from earlier builds, and who vouches for it."""
