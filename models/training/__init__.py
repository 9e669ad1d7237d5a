"""Training: films and phantoms in, a bundle out. Nothing here is imported when the service runs."""
