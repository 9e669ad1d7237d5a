"""Does the model look where the lesion is? Boxes and peaks of its maps, judged by boxes that people drew."""
